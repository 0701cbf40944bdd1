"""The rules a candidate has to pass, as people write them.

RULE       = METRIC ["rate above" NUMBER] OPERATOR REFERENCE ["," PERCENT ("% confidence" | "% sure")]
OPERATOR   = ">" | ">=" | "<" | "<="
REFERENCE  = NUMBER | [FACTOR "*"] ("base" | "champion") [("+" | "-") NUMBER ["%"]]

preference > champion, 95 % confidence
alignment >= base - 2 %
nsfw rate above 0.5 <= 0.02, 95 % confidence
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from sdo_ray.evaluation.result import BASE, CHAMPION
from sdo_ray.settings import Problem, SettingsError

EXAMPLES = (
    "`preference > champion, 95 % confidence`, `alignment >= base - 2 %` and `nsfw rate above 0.5 <= 0.02, 95 % "
    "confidence`"
)

NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
CONFIDENCE = (50.0, 99.9)
"""Legal percentages, the first excluded and the last included."""


@dataclass(frozen=True)
class Rule:
    """Whether the candidate's metric is on one side of `factor * reference + offset`."""

    text: str
    """As it was written."""
    metric: str
    """A column of the evaluation's images, or one of its set metrics."""
    above: float | None
    """With a number, the metric is the share of images that score above it, in [0, 1]."""
    operator: str
    """`>`, `>=`, `<` or `<=`."""
    reference: str | None
    """`base` or `champion`; None compares with `offset` alone."""
    factor: float
    """What the reference's value is multiplied by."""
    offset: float
    """What is added to it."""
    percent: float
    """What is added to it besides, in percent of its size, whatever its sign."""
    confidence: float | None
    """Percent of evaluations in which it would not pass were the margin 0; None compares the means."""

    def factor_of(self, reference: float) -> float:
        """What a reference of this mean is multiplied by: `base - 5 %` is 0.95 base if that is positive, else 1.05."""
        return self.factor + self.percent / 100 * math.copysign(1, reference)

    def holds(self, margin: float) -> bool:
        """Whether candidate - (factor * reference + offset) is on the rule's side of 0."""
        match self.operator:
            case ">":
                return margin > 0
            case ">=":
                return margin >= 0
            case "<":
                return margin < 0
            case _:
                return margin <= 0


def parse_rule(text: str) -> Rule:
    """A rule from its text; the grammar is above.

    Raises:
        SettingsError: it is none: where reading stopped, and what was expected there.
    """
    words = _Words(text)
    metric = words.expect(r"[^\s<>=,*]+", "the name of a metric")
    above = None
    if words.take(r"rate\b"):
        words.expect(r"above\b", "`above` and a score, which a rate is counted from")
        above = float(words.expect(rf"-?{NUMBER}", "the score that counts if it is exceeded"))
    operator = words.expect(r">=|<=|>|<", "one of > >= < <=")
    reference, factor, offset, percent = None, 1.0, 0.0, 0.0
    number = words.take(rf"-?{NUMBER}(?![\w.])")
    if number is not None and not words.take(r"\*"):
        offset = float(number)
    else:
        factor = 1.0 if number is None else float(number)
        what = f"{BASE} or {CHAMPION}" + (" or a number" if number is None else "")
        reference = words.expect(rf"(?:{BASE}|{CHAMPION})\b", what)
        if sign := words.take(r"[-+]"):
            added = float(sign + words.expect(NUMBER, f"a number after {sign}"))
            offset, percent = (0.0, added) if words.take("%") else (added, 0.0)
    confidence = None
    if words.take(","):
        confidence = float(words.expect(NUMBER, "a percentage, as in `95 % confidence`"))
        words.expect(r"%\s*(?:confidence|sure)\b", "`% confidence`")
        if not CONFIDENCE[0] < confidence <= CONFIDENCE[1]:
            low, high = CONFIDENCE
            got = f"{text!r}: got {confidence:g} % confidence"
            raise SettingsError(Problem("", got, f"it is more than {low:g} and at most {high:g}", "change it"))
    words.end()
    return Rule(text, metric, above, operator, reference, factor, offset, percent, confidence)


class _Words:
    """Reads a rule from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._rest = text.strip()

    def take(self, pattern: str) -> str | None:
        """What matches here, if it does; reading goes on after it."""
        if (match := re.match(pattern, self._rest)) is None:
            return None
        self._rest = self._rest[match.end() :].lstrip()
        return match[0]

    def expect(self, pattern: str, what: str) -> str:
        """The same; SettingsError if it does not match."""
        if (found := self.take(pattern)) is None:
            raise self._error(f"expected {what}")
        return found

    def end(self) -> None:
        """SettingsError unless all was read."""
        if self._rest:
            raise self._error("expected the end of the rule")

    def _error(self, what: str) -> SettingsError:
        where = f"at {self._rest!r}" if self._rest else "at its end"
        return SettingsError(Problem("", f"{self._text!r}: {where}, {what}", f"rules are such as {EXAMPLES}"))
