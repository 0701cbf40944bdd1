"""Ends a run whose policy breaks a rule on held-out prompts, and keeps the newest that does not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sdo_ray.evaluation.result import CHAMPION
from sdo_ray.promotion.rules import Rule, parse_rule
from sdo_ray.rollout.policy_store import Policies
from sdo_ray.settings import Problem, Problems
from sdo_ray.storage import RunDirectory
from sdo_ray.training.decisions import Continue, Decision, RollBack
from sdo_ray.training.records import UpdateReport
from sdo_ray.training.standing import good_version, keep_good

FILE = "held_out.json"
"""What was measured of the base: `base`, name -> mean."""


def check_held_out_rules(texts: Sequence[str], measured: Collection[str]) -> list[Rule]:
    """The rules, which compare one mean with the base's or a number.

    Args:
        texts: as they were written.
        measured: what a look has numbers of.

    Raises:
        SettingsError: by position: one cannot be read, or cannot be judged while a run goes on.
    """
    rules = []
    with Problems() as problems:
        for number, text in enumerate(texts):
            with problems.of(str(number)):
                rules.append(rule := parse_rule(text))
                if (problem := _problem(rule, measured)) is not None:
                    problems.add(problem.under(str(number)))
    return rules


def _problem(rule: Rule, measured: Collection[str]) -> Problem | None:
    if rule.metric not in measured:
        got = f"{rule.text!r}: looks measure no {rule.metric}"
        return Problem("", got, f"they measure {', '.join(measured)}", "name one, or add an evaluator")
    if rule.reference == CHAMPION:
        return Problem("", f"{rule.text!r}: a run has no champion", fix="compare with base, or a number")
    if rule.above is not None or rule.confidence is not None:
        what = "rates" if rule.above is not None else "confidence"
        return Problem("", f"{rule.text!r}: {what} cannot be had from means of few images", fix="compare means")
    return None


class HeldOutRules:
    """An `Observer`. The first look of a run is at its base.

    Args:
        rules: of `check_held_out_rules`.
        policies: where the versions are.
        run: keeps what was measured, for the run that goes on after its driver died.
    """

    def __init__(self, rules: Sequence[Rule], policies: Policies, run: RunDirectory) -> None:
        self._rules = rules
        self._policies = policies
        self._run = run
        known: Any = run.read_json(FILE, lost="how the base did on held-out prompts; begin the run anew")
        self._base: dict[str, float] = (known or {}).get("base", {})
        self._good = good_version(run)

    def observe(self, report: UpdateReport) -> Decision:
        """See `Observer`."""
        if (look := report.held_out) is None:
            return Continue()
        if look.version == 0:
            self._base = look.means
            self._run.write_json(FILE, {"base": self._base})
        means = "  ".join(f"{key} {mean:.4g}{self._from_base(key)}" for key, mean in look.means.items())
        print(f"held-out prompts under version {look.version}: {means}", flush=True)
        if broken := [rule for rule in self._rules if not self._holds(rule, look.means)]:
            said = " and ".join(f"{rule.text} (it is {look.means.get(rule.metric, 'unknown')})" for rule in broken)
            return RollBack(self._good, f"version {look.version} breaks the rule on held-out prompts {said}")
        version, weights = self._policies.newest(look.version)
        if version == look.version and weights is not None and self._rules:
            keep_good(self._run, version, weights)
            self._good = version
        return Continue()

    def _holds(self, rule: Rule, means: dict[str, float]) -> bool:
        if rule.metric not in means:
            return False
        bound = rule.offset
        if rule.reference is not None:
            base = self._base[rule.metric]
            bound += rule.factor_of(base) * base
        return rule.holds(means[rule.metric] - bound)

    def _from_base(self, key: str) -> str:
        return f" (base {self._base[key]:.4g})" if key in self._base else ""
