"""What an evaluation says about a rule."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sdo_ray.evaluation.compare import resampled_means
from sdo_ray.evaluation.result import CANDIDATE, CHAMPION, Evaluation
from sdo_ray.promotion.rules import Rule


@dataclass(frozen=True)
class Verdict:
    """A rule with its numbers."""

    rule: str
    """As it was written."""
    passed: bool
    reason: str
    """In words, why, where numbers do not say it: a missing metric, no champion yet. Else empty."""
    candidate: float | None = None
    """The candidate's value: a mean, a rate, or a metric of the whole set."""
    bound: float | None = None
    """What it is compared with: factor * reference + offset."""
    margin: float | None = None
    """candidate - bound."""
    confidence_limit: float | None = None
    """The margin's limit at the confidence that the rule asks for: a one-sided bootstrap bound."""
    prompts: int = 0
    """Different prompts, which the bootstrap draws from."""

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
    """Does the evaluated candidate pass a rule?

    The mean over images of d = c - (factor r + offset) is compared with 0, where c and r are the candidate's and the
    reference's scores of the same prompt and noise; for a rate, 1 above the threshold and 0 elsewhere. With "P %
    confidence", a one-sided bootstrap bound of that mean is (Efron 1979): its (100 - P)th percentile for > and >=, its
    Pth for < and <=. The bootstrap draws prompts, each with all of its images, for images of one prompt are alike.
    """
    if rule.reference is not None and rule.reference not in evaluation.models:
        if rule.reference == CHAMPION:
            return Verdict(rule.text, True, "no champion yet, so nothing to be better than")
        return Verdict(rule.text, False, f"the evaluation has no {rule.reference}; it has {_list(evaluation.models)}")
    if rule.metric in evaluation.set_metrics:
        return _decide_set(rule, evaluation)
    return _decide_images(rule, evaluation)


def _decide_set(rule: Rule, evaluation: Evaluation) -> Verdict:
    """A metric that only the whole set of images has."""
    if rule.above is not None or rule.confidence is not None:
        what = "rate" if rule.above is not None else "confidence"
        return Verdict(rule.text, False, f"{rule.metric} is one number for all images, which has no {what}")
    values = evaluation.set_metrics[rule.metric]
    roles = [CANDIDATE, *([rule.reference] if rule.reference else [])]
    for role in roles:
        if not math.isfinite(values.get(role, math.nan)):
            return Verdict(rule.text, False, f"{rule.metric} of the {role} is {values.get(role, 'missing')}")
    bound = rule.offset + (rule.factor * values[rule.reference] if rule.reference else 0.0)
    margin = values[CANDIDATE] - bound
    return Verdict(rule.text, rule.holds(margin), "", values[CANDIDATE], bound, margin)


def _decide_images(rule: Rule, evaluation: Evaluation) -> Verdict:
    """A metric of every image."""
    scores = {}
    for role in (CANDIDATE, *([rule.reference] if rule.reference else [])):
        column = f"{role}.{rule.metric}"
        if column not in evaluation.images.column_names:
            known = (*evaluation.metrics, *evaluation.set_metrics)
            return Verdict(rule.text, False, f"there is no {rule.metric} of the {role}; there are {_list(known)}")
        scores[role] = _numbers(evaluation.images.column(column))
        if broken := int((~np.isfinite(scores[role])).sum()):
            count = len(scores[role])
            return Verdict(rule.text, False, f"{broken} of the {role}'s {count} scores of {rule.metric} are no numbers")
        if rule.above is not None:
            scores[role] = (scores[role] > rule.above).astype(float)
    candidate = scores[CANDIDATE]
    bounds = np.full_like(candidate, rule.offset)
    if rule.reference:
        bounds += rule.factor * scores[rule.reference]
    margin = float((candidate - bounds).mean())
    numbers = (float(candidate.mean()), float(bounds.mean()), margin)
    if rule.confidence is None:
        return Verdict(rule.text, rule.holds(margin), "", *numbers)
    prompts = evaluation.images.column("prompt").to_pylist()
    if (count := len(set(prompts))) < 2:
        return Verdict(rule.text, False, f"confidence takes two or more different prompts; there is {count}")
    percent = 100 - rule.confidence if rule.operator in (">", ">=") else rule.confidence
    confidence_limit = float(np.percentile(resampled_means(candidate - bounds, prompts), percent))
    return Verdict(rule.text, rule.holds(confidence_limit), "", *numbers, confidence_limit, count)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """float64 [N], NaN where there is none."""
    return np.array([math.nan if value is None else value for value in column.to_pylist()], dtype=float)


def _list(names: object) -> str:
    return ", ".join(map(str, names)) or "none"  # type: ignore[call-overload]
