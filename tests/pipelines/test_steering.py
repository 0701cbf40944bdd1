"""Observers that end a real run: samplers, rewards, trainers and checkpoints as they are."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from pipelines.align import align
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.loading import load_settings
from sdo_ray.storage import RunDirectory
from sdo_ray.training.checkpoints import read_policy
from sdo_ray.training.decisions import Abort, Continue, Decision, RollBack, Stop
from sdo_ray.training.group import RunGivenUp
from sdo_ray.training.listing import kept
from sdo_ray.training.records import UpdateReport
from sdo_ray.training.standing import final_policy, has_ended
from tests.support.runs import final_adapter, tiny_settings


class At:
    """Decides once, of one update; remembers the mean rewards."""

    def __init__(self, update: int, decision: Decision) -> None:
        self.update, self.decision = update, decision
        self.rewards: dict[int, float | None] = {}

    def observe(self, report: UpdateReport) -> Decision:
        self.rewards[report.update] = report.reward.mean
        return self.decision if report.update == self.update else Continue()


@pytest.fixture(autouse=True)
def cluster_of_its_own() -> Iterator[None]:
    yield
    ray.shutdown()


def tiny(directory: Path, base: Path) -> AlignSettings:
    """Many more updates than will be made."""
    training = {"updates": 40, "checkpoint_every": 2}
    settings = tiny_settings(directory, base, training=training, tracking={"preview_prompts": []})
    return load_settings(AlignSettings, settings)


def run_of(settings: AlignSettings) -> RunDirectory:
    return RunDirectory(settings.run.storage, settings.run.name)


@pytest.mark.slow
def test_a_run_that_is_stopped_hands_out_what_it_has(tiny_base: Path, tmp_path: Path, capfd) -> None:
    settings, observer = tiny(tmp_path, tiny_base), At(2, Stop("good enough"))
    align(settings, [observer])
    run = run_of(settings)
    policy = final_policy(run, {})
    assert 3 <= policy.version < 40
    assert policy.why == "good enough"
    assert max(observer.rewards) == policy.version - 1  # trained no further, and everything was seen
    assert f"version {policy.version}: good enough" in capfd.readouterr().out
    newest = read_policy(kept(run)[policy.version])
    assert all(torch.equal(policy.weights[name], newest[name]) for name in newest)
    assert final_adapter(tmp_path).keys() == newest.keys()
    # Again: the outcome, and nothing is trained.
    align(settings, [At(0, Abort("must not be asked"))])


@pytest.mark.slow
def test_a_run_that_is_rolled_back_hands_out_a_kept_version(tiny_base: Path, tmp_path: Path) -> None:
    settings = tiny(tmp_path, tiny_base)
    align(settings, [At(5, RollBack(5, "held-out alignment fell"))])
    policy = final_policy(run_of(settings), {})
    assert policy.version in (2, 4)  # checkpoints are made at each second, the best and the newest kept
    assert policy.why == "held-out alignment fell"


@pytest.mark.slow
def test_a_run_that_is_aborted_goes_on_by_the_same_command(tiny_base: Path, tmp_path: Path) -> None:
    settings = tiny(tmp_path, tiny_base)
    with pytest.raises(RunGivenUp, match="the disk is full"):
        align(settings, [At(4, Abort("the disk is full"))])
    ray.shutdown()
    run = run_of(settings)
    assert not has_ended(run, 40)
    after = At(6, Stop("enough"))
    align(settings, [after])
    assert min(after.rewards) >= 2  # from a checkpoint, not from the beginning
    assert final_policy(run, {}).version >= 7


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_beside_the_newest(tiny_base: Path, tmp_path: Path) -> None:
    """The reward falls as the adapter learns to lower it, so the first checkpoint stays the best."""
    settings = tiny(tmp_path, tiny_base)
    terms = [term.model_copy(update={"weight": -term.weight}) for term in settings.rewards.terms]
    falling = {"rewards": settings.rewards.model_copy(update={"terms": terms[:1]})}
    settings = settings.model_copy(update=falling)
    observer = At(8, Stop("enough"))
    align(settings, [observer])
    versions = list(kept(run_of(settings)))
    every = settings.training.checkpoint_every
    means = {
        v: sum(observer.rewards[u] or 0.0 for u in range(v - every, v)) / every
        for v in range(every, max(versions) + 1, every)
    }
    best = max(means, key=lambda v: means[v])
    assert versions == sorted({best, max(versions)})


def diverging(directory: Path, base: Path, checkpoint_every: int) -> AlignSettings:
    """By a rate of 600 the weights pass, within some updates, what a gradient comes back from in float32."""
    absurd = {"updates": 60, "learning_rate": 600.0, "checkpoint_every": checkpoint_every}
    quiet = {"preview_prompts": []}
    settings = tiny_settings(directory, base, training=absurd, tracking=quiet, trainers={"count": 1})
    return load_settings(AlignSettings, settings)


@pytest.mark.slow
def test_one_that_diverges_before_a_version_is_kept_fails_and_has_not_ended(tiny_base: Path, tmp_path: Path) -> None:
    settings = diverging(tmp_path, tiny_base, checkpoint_every=60)
    with pytest.raises(RunGivenUp, match=r"it diverged, 3 updates in a row: .*; no version is kept from before"):
        align(settings)
    assert not has_ended(run_of(settings), 60)


@pytest.mark.slow
def test_a_run_that_diverges_says_so_and_is_rolled_back_to_a_version_that_samples(
    tiny_base: Path, tmp_path: Path, capfd
) -> None:
    settings = diverging(tmp_path, tiny_base, checkpoint_every=2)
    observer = At(0, Continue())
    outcome = align(settings, [observer])
    said = capfd.readouterr().out
    policy = final_policy(run_of(settings), {})
    assert policy.why.startswith("it diverged, 3 updates in a row: ")
    assert policy.why.endswith(
        "samples were skipped (what the policy samples, or the gradient through it, is not finite)"
    )
    learned = [update for update, reward in observer.rewards.items() if reward is not None]
    assert 0 < policy.version <= max(learned)
    assert f"version {policy.version}: {policy.why}" in said
    assert all(weights.isfinite().all() for weights in policy.weights.values())
    assert "nan" not in str(outcome)


@pytest.mark.slow
def test_a_run_that_hacks_its_reward_is_stopped_and_rolled_back(tiny_base: Path, tmp_path: Path, capfd) -> None:
    """Brightness alone, at a high rate, bleaches the images; an evaluator that training does not see finds it."""
    settings = load_settings(
        AlignSettings,
        tiny_settings(
            tmp_path,
            tiny_base,
            rewards={"terms": [{"name": "tests.support.ink:Light", "weight": 1.0}]},
            training={"updates": 60, "learning_rate": 0.03, "checkpoint_every": 25},
            evaluation={
                "evaluators": [{"name": "tests.support.ink:Ink", "label": "ink"}],
                "watch": {"every": 2, "num_prompts": 4, "rules": ["ink >= 0.99 * base"]},
            },
            tracking={"preview_prompts": []},
        ),
    )
    outcome = align(settings)
    said = capfd.readouterr().out
    policy = final_policy(run_of(settings), {})
    assert "breaks the rule on held-out prompts ink >= 0.99 * base" in policy.why
    assert 0 < policy.version < 60
    assert f"version {policy.version}: {policy.why}" in said
    [before] = [line for line in said.splitlines() if f"under version {policy.version}:" in line]
    mean, base = (float(number.rstrip(")")) for number in before.split()[-3::2])
    assert 0.99 * base <= mean < base
    # What was handed out passes by the closing comparison too, on these very prompts and noises.
    assert "ink" in str(outcome)
