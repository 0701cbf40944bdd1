"""What an evaluation says about a rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from sdo_ray.evaluation.intervals import mean_limits, rate_difference_limits, rate_limits
from sdo_ray.evaluation.result import CANDIDATE, CHAMPION, Evaluation
from sdo_ray.promotion.rules import Rule


@dataclass(frozen=True)
class Verdict:
    """A rule with its numbers."""

    rule: str
    """As it was written."""
    passed: bool
    reason: str
    """In words, why, where numbers do not say it: a missing score, no champion yet. Else empty."""
    candidate: float | None = None
    """The candidate's value: a mean, a rate, or a metric of the whole set."""
    bound: float | None = None
    """What it is compared with: factor * reference + offset."""
    margin: float | None = None
    """candidate - bound."""
    confidence_limit: float | None = None
    """The margin's one-sided limit at the confidence that the rule asks for."""
    prompts: int = 0
    """Different prompts, which the limit is of."""

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.rule}: {self.numbers}"

    @property
    def numbers(self) -> str:
        """What was compared, in words."""
        if self.reason:
            return self.reason
        limit = (
            ""
            if self.confidence_limit is None
            else f", confidence limit {self.confidence_limit:+.4g} over {self.prompts} prompts"
        )
        return f"{self.candidate:.4g} against {self.bound:.4g}; difference {self.margin:+.4g}{limit}"


def apply_rule(rule: Rule, evaluation: Evaluation) -> Verdict:
    """Does the evaluated candidate pass a rule that `check_rules` let through?

    The mean over images of d = c - (factor r + offset) is compared with 0, where c and r are the candidate's and the
    reference's scores of the same prompt and noise; for a rate, 1 above the threshold and 0 elsewhere. With "P %
    confidence", a one-sided limit of that mean is: its lower one for > and >=, its upper one for < and <=, over
    prompts, each with all of its images (`evaluation.intervals`). Scores that are all 0 or 1 are a rate.
    """
    if rule.reference == CHAMPION and CHAMPION not in evaluation.models:
        return Verdict(rule.text, True, "no champion yet, so nothing to be better than")
    if rule.metric in evaluation.set_metrics:
        return _decide_set(rule, evaluation)
    return _decide_images(rule, evaluation)


def _decide_set(rule: Rule, evaluation: Evaluation) -> Verdict:
    """A metric that only the whole set of images has."""
    values = evaluation.set_metrics[rule.metric]
    for role in _roles(rule):
        if not math.isfinite(values.get(role, math.nan)):
            return Verdict(rule.text, False, f"{rule.metric} of the {role} is {values.get(role, 'missing')}")
    reference = values[rule.reference] if rule.reference else 0.0
    if rule.factor != 1 and reference < 0:
        return _turned(rule, reference)
    bound = rule.factor_of(reference) * reference + rule.offset
    margin = values[CANDIDATE] - bound
    return Verdict(rule.text, rule.holds(margin), "", values[CANDIDATE], bound, margin)


def _decide_images(rule: Rule, evaluation: Evaluation) -> Verdict:
    """A metric of every image."""
    scores = {}
    for role in _roles(rule):
        scores[role] = _numbers(evaluation.images.column(f"{role}.{rule.metric}"))
        if broken := int((~np.isfinite(scores[role])).sum()):
            count = len(scores[role])
            return Verdict(rule.text, False, f"{broken} of the {role}'s {count} scores of {rule.metric} are no numbers")
        if rule.above is not None:
            scores[role] = (scores[role] > rule.above).astype(float)
    candidate, prompts = scores[CANDIDATE], evaluation.images.column("prompt").to_pylist()
    reference = scores[rule.reference] if rule.reference else np.zeros_like(candidate)
    mean, factor = float(reference.mean()), rule.factor_of(float(reference.mean()))
    if rule.factor != 1 and reference.min() < 0:
        several = len(set(prompts)) > 1
        if (mean_limits(reference, prompts, 0.975)[0] if several else mean) <= 0:
            return _turned(rule, mean)
    bound = factor * mean + rule.offset
    margin = float(candidate.mean()) - bound
    verdict = Verdict(rule.text, rule.holds(margin), "", float(candidate.mean()), bound, margin)
    if rule.confidence is None:
        return verdict
    confidence = rule.confidence / 100
    if not np.isin([candidate, reference], (0, 1)).all():
        limits = mean_limits(candidate - factor * reference, prompts, confidence)
    elif rule.reference is None:
        limits = rate_limits(candidate, prompts, confidence)
    else:
        limits = rate_difference_limits(candidate, reference, factor, prompts, confidence)
    limit = limits[0 if rule.operator in (">", ">=") else 1] - rule.offset
    return replace(verdict, passed=rule.holds(limit), confidence_limit=limit, prompts=len(set(prompts)))


def _roles(rule: Rule) -> tuple[str, ...]:
    return (CANDIDATE, rule.reference) if rule.reference else (CANDIDATE,)


def _turned(rule: Rule, mean: float) -> Verdict:
    """A factor of a negative number asks for the opposite of what it says."""
    return Verdict(
        rule.text,
        False,
        f"{rule.factor:g} * {rule.reference} turns round where {rule.reference} is negative, and its {rule.metric} is "
        f"{mean:.4g}, not clearly positive; write `{rule.reference} - 5 %`, which is of its size, or a margin",
    )


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """float64 [N], NaN where there is none."""
    return np.array([math.nan if value is None else value for value in column.to_pylist()], dtype=float)
