"""Settings of a promotion."""

from __future__ import annotations

from pydantic import Field

from sdo_ray.promotion.lock import LONGEST
from sdo_ray.promotion.rules import Rule, parse_rule
from sdo_ray.settings import Problems, Settings
from sdo_ray.storage import LONGEST_NAME, NAME


class EvaluatedSettings(Settings):
    """The evaluation to decide by."""

    name: str = Field(
        pattern=NAME, max_length=LONGEST_NAME, description="The run's name that `sdo evaluate` was given."
    )
    storage: str = Field("runs", description="The run's storage, a directory or URI, that `sdo evaluate` was given.")


class PromotionSettings(Settings):
    """What is promoted, and when."""

    model: str = Field(pattern=r"^[^/:@'\"%]+$", description="Name of the registered model.")
    rules: list[str] = Field(
        min_length=1,
        description="What the candidate has to pass, all of it: `METRIC [rate above NUMBER] OPERATOR REFERENCE "
        "[, PERCENT % confidence]`, see docs/promote.md.",
    )
    lock_seconds: float = Field(
        60.0,
        ge=30,
        le=LONGEST,
        description="How long this promotion may hold the model's lock, and so how long others wait if it dies.",
    )


class PromoteSettings(Settings):
    """One promotion: an evaluation, and the rules it is evaluated by."""

    evaluation: EvaluatedSettings
    promotion: PromotionSettings

    def rules(self) -> list[Rule]:
        """The rules, read.

        Raises:
            SettingsError: with a line for every one that is none.
        """
        rules = []
        with Problems() as problems:
            for i, text in enumerate(self.promotion.rules):
                with problems.of(f"promotion.rules.{i}"):
                    rules.append(parse_rule(text))
        return rules
