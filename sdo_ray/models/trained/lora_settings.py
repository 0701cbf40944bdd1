"""Settings of a LoRA adapter, and what PEFT makes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator

from sdo_ray.models.bound import kind_of_layer
from sdo_ray.models.trained.layers import ends_with, has_layer
from sdo_ray.settings import Problem, Settings, SettingsError

if TYPE_CHECKING:
    from peft import LoraConfig


class LoraSettings(Settings):
    """A LoRA adapter (arXiv 2106.09685) on the denoiser."""

    rank: int = Field(8, ge=1, description="Rank of the two factors of each adapted layer.")
    alpha: float = Field(8.0, gt=0, description="Scale; the update of a layer is alpha / rank * B A.")
    targets: list[str] = Field(
        default=["to_q", "to_k", "to_v", "to_out.0"],
        min_length=1,
        description="Endings of the names of the denoiser's linear and convolution layers to adapt.",
    )
    text_encoder_targets: list[str] = Field(
        default=[],
        description="The same for the text encoders, which are adapted too if any are named, such as `q_proj`.",
    )
    rslora: bool = Field(
        False,
        description="Rank-stabilised (arXiv 2312.03732): alpha / sqrt(rank) * B A, whose size does not fall with the "
        "rank.",
    )
    dora: bool = Field(
        False,
        description="Weight-decomposed (DoRA, arXiv 2402.09353): each row of W + B A is brought to a length that is "
        "trained too. Slower, as each call computes the rows' lengths; in half precision samplers round these.",
    )
    init: Literal["default", "gaussian", "pissa"] = Field(
        "default",
        description="What A and B start with. `default`: A uniform in +-1/sqrt(inputs), B zero; `gaussian`: A normal "
        "with deviation 1/rank, B zero; `pissa` (arXiv 2404.02948): the weight's own principal part, which the base "
        "is freed of; of linear layers, in float32.",
    )
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="Ranks of single layers by the endings of their names, such as `{ff.net.2: 16}`.",
    )
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="The same for alpha."
    )

    @property
    def reads_weights(self) -> bool:
        """Whether the start depends on the base model's weights, not on their shapes alone."""
        return self.dora or self.init == "pissa"

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.dora and self.init == "pissa":
            raise ValueError(
                "dora and init: pissa are both given, and a file of their difference from the base cannot be written; "
                "leave one out"
            )
        return self


def peft_config(settings: LoraSettings, module: torch.nn.Module, targets: Sequence[str]) -> LoraConfig:
    """What PEFT is told; its own draws are replaced by those of `started`.

    Args:
        settings: the adapter's.
        module: that gets it.
        targets: endings of the names of its layers to adapt.
    """
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=list(targets),
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        rank_pattern=_expressions(settings.rank_pattern, module),
        alpha_pattern=_expressions(settings.alpha_pattern, module),
    )


def check_patterns(settings: LoraSettings, adapted: Sequence[str]) -> None:
    """Refuse patterns that fit no layer, or a layer that several fit.

    Args:
        settings: the adapter's.
        adapted: names of the adapted layers.

    Raises:
        SettingsError: naming the pattern.
    """
    for setting, pattern in (("rank_pattern", settings.rank_pattern), ("alpha_pattern", settings.alpha_pattern)):
        fits = {ending: {name for name in adapted if ends_with(name, ending)} for ending in pattern}
        if unmatched := [ending for ending, names in fits.items() if not names]:
            got = f"no adapted layer ends with {', '.join(unmatched)}"
            legal = f"adapted are {', '.join(sorted({kind_of_layer(name) for name in adapted}))}"
            raise SettingsError(Problem(f"lora.{setting}", got, legal, "choose among them, or add it to lora.targets"))
        for name in adapted:
            if len(several := [ending for ending, names in fits.items() if name in names]) > 1:
                got = f"{' and '.join(several)} both fit {name}"
                raise SettingsError(Problem(f"lora.{setting}", got, fix="give longer endings, each for other layers"))


def _expressions(pattern: Mapping[str, Any], module: torch.nn.Module) -> dict[str, Any]:
    """As PEFT takes it, regular expressions, of those that are of layers of the module: it warns of others."""
    return {re.escape(ending): value for ending, value in pattern.items() if has_layer(module, ending)}
