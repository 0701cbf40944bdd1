"""A cluster that has no room for a run yet, and grows; and one that shrinks."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.data
import torch
from ray.cluster_utils import Cluster

from sdo_ray import cluster as cluster_module
from sdo_ray.cluster import Demand, connect
from sdo_ray.rollout.policy_store import Policies
from sdo_ray.rollout.settings import LearningSamplerSettings
from sdo_ray.rollout.stream import contribution_stream
from sdo_ray.rollout.watch import Watch
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.training.channel import Channel
from sdo_ray.training.group import train
from sdo_ray.training.standing import final_policy
from tests.rollout.test_stream import expected_rows, rows_of, run_stream
from tests.support.contributions import PER_UPDATE, WEIGHTS, ContributingSampler, stream_of, worker_config
from tests.support.streams import Meeting, MeetingSampler

UPDATES = 20


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Joined, with one CPU."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars
    yield made
    context.enable_progress_bars = before
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_a_run_waits_for_the_nodes_it_asked_for(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "POLL", 0.5)
    demands = [Demand("samplers", 4, 1.0, 0.0, at_least=2)]
    with pytest.raises(SettingsError, match="needs 2 CPU and 0 GPU at once, and there are 1 CPU"):
        connect(demands)
    with ThreadPoolExecutor() as pool:  # nodes are added by the main thread alone
        joined = pool.submit(connect, demands, 100.0)
        with pytest.raises(TimeoutError):
            joined.result(3.0)
        cluster.add_node(num_cpus=1)
        assert joined.result(100.0) == "Ray cluster of 2 nodes"
    assert "waiting up to 100 s for the cluster to have 2 CPU and 0 GPU" in capsys.readouterr().out


@pytest.mark.slow
def test_samplers_join_when_there_is_room(cluster: Cluster) -> None:
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    # An update ends only if two samplers work on it at once, and there is room for one.
    meeting = ray.remote(num_cpus=0)(Meeting).remote(2)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(
            run_stream, updates=2, samplers=2, cpus=1.0, sampler=MeetingSampler, actors={"meeting": meeting}
        )
        with pytest.raises(TimeoutError):
            running.result(20.0)
        cluster.add_node(num_cpus=1)
        assert rows_of(running.result()) == expected_rows(2)


@pytest.mark.slow
def test_what_a_sampler_had_in_hand_whose_node_is_gone_for_good_is_given_to_others(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=1)  # room for the trainer and one sampler
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    policies, watch, run = Policies.start(0), Watch.start(), RunDirectory(str(tmp_path), "run")
    config = worker_config(policies, Channel.start(), updates=UPDATES, run=run)
    trainers = config.trainers.model_copy(update={"max_failures": 1, "num_cpus": 1.0})
    config = replace(config, trainers=trainers, watch=watch, lost_after=20.0)
    samplers: Any = SimpleNamespace(
        seed=3, samplers=LearningSamplerSettings(count=2, batch_size=2, num_cpus=1.0, in_flight=1)
    )
    stream = contribution_stream(
        list("abc"),
        samplers,
        ContributingSampler,
        stop=UPDATES,
        batch_size=2 * PER_UPDATE,
        max_policy_lag=0,
        policies=policies,
        reward_actors={"seconds": 3.0},
        watch=watch,
    )
    updates = train(config, stream)
    made = [next(updates).update]
    gone, until = cluster.add_node(num_cpus=1), time.monotonic() + 60.0
    while not any("sampler 2 at update" in at for at in ray.get(watch.actor.waiting.remote())):
        assert time.monotonic() < until, "the second sampler has not joined"
        time.sleep(0.1)
    cluster.remove_node(gone, allow_graceful=False)
    made += [report.update for report in updates]
    assert made == list(range(UPDATES))
    [said] = [line for line in ray.get(watch.actor.news.remote()) if "loss 1 of this run" in line]
    assert "others are given its work" in said
    undisturbed = RunDirectory(str(tmp_path), "undisturbed")
    alone = worker_config(Policies.start(0), Channel.start(), updates=UPDATES, run=undisturbed)
    list(train(alone, stream_of([1.0] * UPDATES)))
    found, expected = final_policy(run, WEIGHTS).weights, final_policy(undisturbed, WEIGHTS).weights
    assert all(torch.equal(found[name], expected[name]) for name in WEIGHTS)
