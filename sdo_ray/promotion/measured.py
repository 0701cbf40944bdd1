"""Whether rules can be judged at all by what an evaluation measures: known before its images are made."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sdo_ray.evaluation.intervals import clusters_needed, prompts_for_rate
from sdo_ray.evaluation.result import BASE, CANDIDATE, CHAMPION, Evaluation
from sdo_ray.promotion.rules import Rule
from sdo_ray.settings import Problem, Problems


@dataclass(frozen=True)
class Measured:
    """What an evaluation says of its models."""

    images: Collection[str]
    """Metrics of every image."""
    sets: Collection[str]
    """Metrics of each model's whole set of images."""
    prompts: int
    """Different prompts."""

    @classmethod
    def of(cls, evaluation: Evaluation) -> Measured:
        """By an evaluation that was made."""
        prompts = len(set(evaluation.images["prompt"].to_pylist()))
        return cls(evaluation.metrics, tuple(evaluation.set_metrics), prompts)


def check_rules(rules: Sequence[Rule], measured: Measured, has_champion: bool) -> None:
    """Refuse rules that no candidate could pass or fail by what it is like.

    Args:
        rules: of one promotion.
        measured: by the evaluation.
        has_champion: whether there is one.

    Raises:
        SettingsError: a metric is not measured, has no rate or confidence, or its confidence takes more prompts than
            there are, with the number that would do; or, without a champion, no rule would judge anything.
    """
    with Problems() as problems:
        for i, rule in enumerate(rules):
            if problem := _problem(rule, measured):
                problems.add(problem.under(f"promotion.rules.{i}"))
        if not has_champion and all(rule.reference == CHAMPION for rule in rules):
            got = "all of them compare with the champion, and there is none"
            fix = f"add one that judges the first champion too, such as `METRIC >= {BASE}`"
            problems.add(Problem("promotion.rules", got, fix=fix))


def _problem(rule: Rule, measured: Measured) -> Problem | None:
    if rule.metric in measured.sets:
        if rule.above is None and rule.confidence is None:
            return None
        what = "rate" if rule.above is not None else "confidence"
        got = f"{rule.text!r}: {rule.metric} is one number for all images, which has no {what}"
        return Problem("", got, fix="leave it out")
    if rule.metric not in measured.images:
        known = ", ".join((*measured.images, *measured.sets)) or "none"
        got = f"{rule.text!r}: there is no {rule.metric} of the {CANDIDATE}"
        return Problem("", got, f"the evaluation measures {known}", "name one, or have it measured")
    needed = _prompts_needed(rule)
    if needed is None:
        got = f"{rule.text!r}: no number of prompts shows that with {rule.confidence:g} % confidence"
        return Problem("", got, fix="change the bound")
    if needed > measured.prompts:
        got = (
            f"{rule.text!r}: {measured.prompts} prompts cannot show that with {rule.confidence:g} % confidence, "
            "whatever the candidate is like"
        )
        return Problem("", got, f"it takes {needed} or more", "evaluate with as many, or lower the confidence")
    return None


def _prompts_needed(rule: Rule) -> int | None:
    """The fewest prompts by which the best candidate there can be passes; None if none do."""
    if rule.confidence is None:
        return 1
    confidence = rule.confidence / 100
    if rule.above is not None and rule.reference is None:
        upwards = rule.operator in (">", ">=")
        return prompts_for_rate(1 - rule.offset if upwards else rule.offset, confidence)
    return clusters_needed(confidence)
