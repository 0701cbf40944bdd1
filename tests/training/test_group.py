"""The real Ray Train group, fed by hand: what it keeps, how the driver ends it, what a run then hands out."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from sdo_ray.rollout.policy_store import Policies
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.training.channel import Channel
from sdo_ray.training.decisions import RollBack, Stop
from sdo_ray.training.group import RunGivenUp, train
from sdo_ray.training.listing import LIST, kept
from sdo_ray.training.standing import (
    check_updates,
    end_training,
    final_policy,
    has_ended,
    is_extended,
    progress,
)
from tests.support.contributions import WEIGHTS, stream_of, worker_config


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(tmp_path), "run")


def versions(run: RunDirectory) -> list[int]:
    return list(kept(run))


def test_newest_and_best_are_kept_and_the_driver_decides_which_goes_out(run: RunDirectory) -> None:
    policies, channel = Policies.start(max_policy_lag=10), Channel.start()
    # Highest in updates 2 and 3, which end in version 4.
    rewards = [1.0, 1.0, 5.0, 5.0, 3.0, 3.0, 2.0, 2.0, 1.0, 1.0]
    channel.end(ending := RollBack(7, "worse"), 8)
    config = worker_config(policies, channel, updates=10, run=run)
    assert progress(run) == (0, [])
    seen = [report.update for report in train(config, stream_of(rewards))]
    assert seen == list(range(8))
    assert versions(run) == [4, 6]
    assert not has_ended(run, 10)
    check_updates(run, 6)
    with pytest.raises(SettingsError, match=r"^updates: got 5, and the run 'run' has made 6;"):
        check_updates(run, 5)
    # A complete run goes on for more updates than it was asked for, known or made.
    assert [is_extended(run, updates, 10) for updates in (9, 10, 11)] == [False, False, True]
    assert [is_extended(run, updates, None) for updates in (6, 7)] == [False, True]
    end_training(run, ending)
    assert not is_extended(run, 20, 10)
    assert has_ended(run, 10)
    policy = final_policy(run, WEIGHTS)
    assert (policy.version, policy.why) == (6, "worse")
    end_training(run, RollBack(5, "much worse"))
    assert final_policy(run, WEIGHTS).version == 4
    end_training(run, RollBack(3, "nothing is left of that"))
    assert final_policy(run, WEIGHTS).version == 0
    assert final_policy(run, WEIGHTS).weights is WEIGHTS


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["cut", "of another run"])
def test_a_damaged_checkpoint_is_passed_by_and_the_one_before_it_taken(
    run: RunDirectory, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = Policies.start(max_policy_lag=10)
    rewards = [9.0, 9.0, 1.0, 1.0, 1.0, 1.0]  # the best is of updates 0 and 1
    list(train(worker_config(policies, Channel.start(), updates=6, run=run), stream_of(rewards)))
    assert versions(run) == [2, 6]
    whole = final_policy(run, WEIGHTS).weights
    newest = kept(run)[6]
    if harm == "cut":
        shard = next(Path(newest.path).glob("optimizer/exp_avg.safetensors"))
        shard.write_bytes(shard.read_bytes()[:-10])
        why = f"optimizer/{shard.name} has"
    else:
        other = RunDirectory(run.storage, "other")
        list(train(worker_config(policies, Channel.start(), updates=6, run=other), stream_of([3.0] * 6)))
        shutil.rmtree(newest.path)
        shutil.copytree(kept(other)[6].path, newest.path)
        why = "it is of the run 'other'"
    assert progress(run)[0] == 2
    again = train(worker_config(policies, Channel.start(), updates=6, run=run), stream_of(rewards))
    assert [report.update for report in again] == [2, 3, 4, 5]
    said = capsys.readouterr().out
    assert f"{newest.path} of update 6 is not taken: {why}" in said
    assert "it goes on from " in said
    policy = final_policy(run, WEIGHTS)
    assert policy.version == 6
    assert all(torch.equal(policy.weights[name], whole[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 0.5])
def test_it_goes_on_where_the_list_of_checkpoints_was_cut(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], left: float
) -> None:
    rewards = [9.0, 9.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]  # the best is of updates 0 and 1

    def trained(run: RunDirectory, updates: int) -> list[int]:
        config = worker_config(Policies.start(10), Channel.start(), updates=updates, run=run)
        return [report.update for report in train(config, stream_of(rewards))]

    trained(run, 6)
    run.write(LIST, (data := run.read(LIST))[: int(left * len(data))])
    assert trained(run, 8) == [6, 7]
    assert "those of update 2, 6 are whole" in capsys.readouterr().out
    assert versions(run) == [2, 8]  # Ray Train knows the best again, and that it has to remove the one of update 6
    assert sum(found.is_dir() for found in Path(run.place("train")).glob("checkpoint_*")) == 2
    trained(other := RunDirectory(run.storage, "undisturbed"), 8)
    policy, expected = final_policy(run, WEIGHTS), final_policy(other, WEIGHTS)
    assert all(torch.equal(policy.weights[name], expected.weights[name]) for name in WEIGHTS)


@pytest.mark.slow
def test_a_stopped_group_goes_on_from_its_checkpoint_if_asked_again(run: RunDirectory) -> None:
    policies, channel = Policies.start(max_policy_lag=10), Channel.start()
    channel.end(stop := Stop("enough"), 3)
    first = [r.update for r in train(worker_config(policies, channel, updates=5, run=run), stream_of([1.0] * 5))]
    assert (first, progress(run)[0], [r.update for r in progress(run)[1]]) == ([0, 1, 2], 3, [0, 1, 2])
    # The driver died before it wrote down that it had stopped the run.
    config = worker_config(policies, Channel.start(), updates=5, run=run)
    assert [r.update for r in train(config, stream_of([1.0] * 5))] == [3, 4]
    policy = final_policy(run, WEIGHTS)
    assert (policy.version, policy.why) == (5, "all updates were made")
    assert not torch.equal(policy.weights["a"], WEIGHTS["a"])
    end_training(run, stop)
    assert final_policy(run, WEIGHTS).why == "enough"


@pytest.mark.slow
def test_it_goes_on_with_another_number_of_trainers(run: RunDirectory) -> None:
    def trained(run: RunDirectory, updates: int, count: int) -> torch.Tensor:
        config = worker_config(Policies.start(10), Channel.start(), updates=updates, run=run, count=count)
        list(train(config, stream_of([1.0] * 6)))
        assert [report.update for report in progress(run)[1]] == list(range(updates))
        return final_policy(run, WEIGHTS).weights["a"]

    expected = trained(RunDirectory(run.storage, "one"), 6, 1)
    for updates, count in ((2, 1), (4, 2)):
        assert not torch.allclose(trained(run, updates, count), expected, atol=1e-3)
    torch.testing.assert_close(trained(run, 6, 1), expected)


@pytest.mark.slow
def test_a_score_that_is_missing_or_not_a_number_takes_no_best_place(run: RunDirectory) -> None:
    """An update without a sample that counts has no reward; the one that has stays the best."""
    policies, channel = Policies.start(max_policy_lag=10), Channel.start()
    rewards = [-3.0, -3.0, math.inf, math.inf, -4.0, -4.0]
    list(train(worker_config(policies, channel, updates=6, run=run), stream_of(rewards)))
    assert versions(run) == [2, 6]


@pytest.mark.slow
def test_a_stream_that_raises_gives_the_run_up(run: RunDirectory) -> None:
    def stream(start: int) -> ray.data.Dataset:
        def broken(row: dict[str, object]) -> dict[str, object]:
            raise ValueError("the reward is broken")

        return stream_of([1.0] * 3)(start).map(broken)

    config = worker_config(Policies.start(max_policy_lag=10), Channel.start(), updates=3, run=run)
    with pytest.raises(RunGivenUp, match="the reward is broken"):
        list(train(config, stream))
    assert versions(run) == []
