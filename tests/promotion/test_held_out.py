"""Rules on held-out prompts while a run goes on: which can be judged, and what comes of one that is broken."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from sdo_ray.promotion.held_out import HeldOutRules, check_held_out_rules
from sdo_ray.rollout.looks import HeldOutMeans
from sdo_ray.rollout.policy_store import Policies, Publisher
from sdo_ray.rollout.tensors import dump_tensors
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.training.decisions import Continue, RollBack
from sdo_ray.training.records import UpdateReport
from sdo_ray.training.standing import end_training, final_policy
from tests.support.updates import report

INITIAL = {"a": torch.zeros(2)}


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def looked(version: int, **means: float) -> UpdateReport:
    return replace(report(version), held_out=HeldOutMeans(version, means))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nsfw <= 0.1", r"looks measure no nsfw; they measure alignment; name one, or add an evaluator"),
        ("alignment >= champion", r"a run has no champion"),
        ("alignment >= base, 95 % confidence", r"confidence cannot be had from means of few images"),
        ("alignment >=", r"expected base or champion or a number"),
    ],
)
def test_rules_that_cannot_be_judged(text: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=rf"^1: .*{complaint}"):
        check_held_out_rules(["alignment >= 0.95 * base", text], ["alignment"])


def test_a_broken_rule_hands_out_the_newest_version_that_passed(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, policies = RunDirectory(str(tmp_path), "run"), Policies.start(max_policy_lag=0)
    rules = check_held_out_rules(["alignment >= base - 10 %", "nsfw <= 0.5"], ["alignment", "nsfw"])
    with Publisher(policies) as publisher:

        def watch(version: int) -> HeldOutRules:
            publisher.publish(version, dump_tensors({"a": torch.full((2,), float(version))}))
            return HeldOutRules(rules, policies, run)  # anew each time, as after the driver's death

        assert watch(0).observe(looked(0, alignment=0.5, nsfw=0.1)) == Continue()
        assert watch(1).observe(report(1)) == Continue()  # no look
        assert watch(4).observe(looked(4, alignment=0.46, nsfw=0.5)) == Continue()
        decided = watch(8).observe(looked(8, alignment=0.44, nsfw=0.6))
        assert watch(9).observe(looked(9, alignment=0.5)) == RollBack(
            4, "version 9 breaks the rule on held-out prompts nsfw <= 0.5 (it is unknown)"
        )
    assert isinstance(decided, RollBack)
    assert decided.version == 4
    assert "alignment >= base - 10 % (it is 0.44) and nsfw <= 0.5 (it is 0.6)" in decided.reason
    assert "under version 4: alignment 0.46 (base 0.5)  nsfw 0.5 (base 0.1)" in capsys.readouterr().out
    end_training(run, decided)
    policy = final_policy(run, INITIAL)
    assert (policy.version, policy.why) == (4, decided.reason)
    assert policy.weights["a"].tolist() == [4.0, 4.0]


def test_without_a_version_that_passed_it_is_the_base(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path), "run")
    end_training(run, RollBack(0, "worse"))
    assert final_policy(run, INITIAL).weights is INITIAL
