"""What a trainer does at each update: the real function in this process, fed by hand, with a real engine and actors."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import deepspeed
import pytest
import ray
import ray.data
import ray.train
import torch
from ray.train.torch import TorchTrainer

from rewards.pulls import Memory, Pull
from sdo_ray.rollout.gradient import Gradient
from sdo_ray.rollout.policy_store import Policies
from sdo_ray.rollout.records import Contribution
from sdo_ray.rollout.tensors import load_tensors, memory_of, parted
from sdo_ray.training.arriving import ROLLOUTS, arriving
from sdo_ray.training.averaging import Average
from sdo_ray.training.channel import Channel
from sdo_ray.training.checkpoints import AVERAGE, COMPANION, SCORE
from sdo_ray.training.decisions import RollBack, Stop
from sdo_ray.training.engine import make_engine, make_step, policy_weights
from sdo_ray.training.modules import Policy
from sdo_ray.training.optimizer_state import gather_state
from sdo_ray.training.records import memory_after
from sdo_ray.training.saving import Content, Saver
from sdo_ray.training.worker import WorkerConfig, train_worker
from tests.support.contributions import PER_UPDATE, WEIGHTS, contribution, stream_of, worker_config
from tests.support.ports import free_port


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchrun sets, for Ray Train's local mode."""
    one = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": free_port()}
    for name, value in one.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("CXX", "/no/compiler")  # none is needed


@pytest.fixture
def policies() -> Policies:
    return Policies.start(max_policy_lag=10)


@pytest.fixture
def channel() -> Channel:
    return Channel.start()


def trained(config: WorkerConfig) -> None:
    train_worker(config, arriving(config.channel))


def run(
    config: WorkerConfig, stream: ray.data.Dataset, function: Callable[[WorkerConfig], None] = trained
) -> ray.train.Result:
    """Train in this process, and leave no process group behind."""

    def work(config: dict[str, WorkerConfig]) -> None:
        try:
            function(config["worker"])
        finally:
            # DeepSpeed keeps groups of its own, which only its own call forgets.
            deepspeed.comm.destroy_process_group()

    trainer = TorchTrainer(
        work,
        train_loop_config={"worker": config},
        datasets={ROLLOUTS: stream},
        scaling_config=ray.train.ScalingConfig(num_workers=0),
    )
    return trainer.fit()


def weights(policies: Policies, number: int) -> bytes:
    found, data = policies.newest(number)
    assert found == number
    assert data is not None
    return data


def version(policies: Policies, number: int) -> dict[str, torch.Tensor]:
    return load_tensors(weights(policies, number))


def test_each_update_publishes_a_version_and_files_a_report(policies: Policies, channel: Channel) -> None:
    result = run(worker_config(policies, channel, updates=3), stream_of([1.0, 2.0, 3.0], preview=b"png")(0))
    versions = [version(policies, number) for number in range(4)]
    assert all(torch.equal(versions[0][name], WEIGHTS[name]) for name in WEIGHTS)
    for before, after in itertools.pairwise(versions):
        assert not torch.equal(before["a"], after["a"])
    for update in range(3):
        report = channel.next_report(update - 1, 5.0)
        assert report is not None
        assert (report.update, report.reward.mean, report.num_samples) == (update, update + 1.0, 4)
        assert report.preview == b"png"
        assert report.pulls == {"a": Pull(4.0, 4 * (update + 1.0), 4 * (update + 1.0) ** 2, 4.0, 21.0)}
    # What the run knows of its rewards goes with each version: sums over all updates in it.
    assert memory_of(weights(policies, 0)) == Memory()
    assert memory_of(weights(policies, 3)).total == {"a": Pull(12.0, 24.0, 56.0, 12.0, 63.0)}
    # The last is checkpointed whatever `checkpoint_every`; its score is of the updates since the one before.
    assert result.metrics == {"update": 3, SCORE: pytest.approx(3.0)}


def test_a_stop_ends_training_at_its_version_with_a_checkpoint(policies: Policies, channel: Channel) -> None:
    channel.end(Stop("enough"), 3)
    result = run(worker_config(policies, channel, updates=8, every=2), stream_of([1.0] * 8)(0))
    assert policies.newest(8)[0] == 3
    assert result.metrics is not None
    assert result.metrics["update"] == 3  # not one of every second


def test_a_roll_back_ends_training_without_one(policies: Policies, channel: Channel) -> None:
    channel.end(RollBack(2, "worse"), 3)
    result = run(worker_config(policies, channel, updates=8, every=2), stream_of([1.0] * 8)(0))
    assert policies.newest(8)[0] == 3
    assert result.metrics is not None
    assert result.metrics["update"] == 2


def test_from_a_checkpoint_it_goes_on_to_the_same_bits(
    policies: Policies, channel: Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    averages = []

    def save(saver: Saver, *arguments: Any) -> None:
        write(saver, *arguments)
        averages.append({name: tensor.clone() for name, tensor in arguments[-1][AVERAGE].items()})

    write = Saver.save
    monkeypatch.setattr(Saver, "save", save)
    config = replace(worker_config(policies, channel, updates=4, every=4, average=0.5), companion_decay="slow")
    run(config, stream_of([1.0] * 4)(0))
    whole = version(policies, 4)
    reports = [report for update in range(2) if (report := channel.next_report(update - 1, 5.0)) is not None]

    def resumed(given: WorkerConfig) -> None:
        engine = make_engine(Policy(WEIGHTS), config.training, config.trainers, PER_UPDATE)
        average, companion = Average(WEIGHTS, 0.5), Average(WEIGHTS, "slow")
        for update in range(2):
            terms = engine.module.terms(contribution(update, part) for part in range(PER_UPDATE))
            make_step(engine, terms, 2 * PER_UPDATE, config.training.learning_rate)
            for mean in (average, companion):
                mean.add(policy_weights(engine), update + 1)
        means = {AVERAGE: average.weights, COMPANION: companion.weights}
        content = Content(2, memory_after(reports), policy_weights(engine), means, gather_state(engine))
        content.write(tmp_path)
        ray.train.report({}, checkpoint=ray.train.Checkpoint.from_directory(str(tmp_path)))
        trained(given)

    again = Policies.start(max_policy_lag=10)
    run(replace(config, policies=again, channel=Channel.start()), stream_of([1.0] * 4)(2), resumed)
    with pytest.raises(LookupError, match="up to 1 is kept"):
        again.newest(1)
    assert all(torch.equal(version(again, 4)[name], whole[name]) for name in whole)
    unbroken, broken = averages
    assert all(torch.equal(unbroken[name], broken[name]) for name in WEIGHTS)
    assert not torch.equal(unbroken["a"], whole["a"])
    # And the average that the samplers get beside the policy: 0.004 of the one before, after four updates.
    newest, beside = parted(whole)
    _, earlier = parted(version(policies, 3))
    assert beside is not None
    assert earlier is not None
    torch.testing.assert_close(beside["a"], 0.996 * newest["a"] + 0.004 * earlier["a"])
    assert not torch.equal(beside["a"], newest["a"])
    assert memory_of(weights(again, 4)) == memory_of(weights(policies, 4)) != Memory()


def test_contributions_out_of_turn_or_too_few_end_it(policies: Policies, channel: Channel) -> None:
    config = worker_config(policies, channel, updates=3)
    with pytest.raises(RuntimeError, match="to update 1 arrived while update 0 is made"):
        run(config, stream_of([1.0] * 3)(1))
    with pytest.raises(RuntimeError, match="ended before update 2"):
        run(config, stream_of([1.0] * 2)(0))
    twice = [contribution(0, 0).to_arrow(), contribution(0, 0).to_arrow()]
    with pytest.raises(RuntimeError, match=r"update 0 .* missing: 2; there more than once: 0"):
        run(config, ray.data.from_arrow(twice))


def test_an_update_whose_sum_is_not_finite_changes_nothing(policies: Policies, channel: Channel) -> None:
    def batch(update: int, part: int) -> Contribution:
        good = contribution(update, part)
        huge = {name: torch.full(tensor.shape, 3e38) for name, tensor in WEIGHTS.items()}
        return replace(good, gradient=Gradient.of(huge)) if update == 1 else good

    stream = ray.data.from_arrow([batch(u, part).to_arrow() for u in range(3) for part in range(PER_UPDATE)])
    run(worker_config(policies, channel, updates=3), stream)
    versions = [version(policies, number)["a"] for number in range(4)]
    assert torch.equal(versions[1], versions[2])
    assert not torch.equal(versions[2], versions[3])
    assert versions[3].isfinite().all()
    report = channel.next_report(0, 5.0)
    assert report is not None
    assert (report.update, report.num_samples, report.num_skipped, report.gradient_norm) == (1, 0, 4, 0.0)


def test_what_raises_while_sampling_is_not_tried_again(policies: Policies, channel: Channel) -> None:
    def broken(row: Any) -> Any:
        raise ValueError("the reward is broken")

    with pytest.raises(Exception, match="the reward is broken"):
        run(worker_config(policies, channel, updates=3), stream_of([1.0] * 3)(0).map(broken))
    assert "the reward is broken" in (channel.failure() or "")
