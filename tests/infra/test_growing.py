"""A cluster that has no room for a run yet, and grows."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
import ray.data
from ray.cluster_utils import Cluster

from sdo_ray import cluster as cluster_module
from sdo_ray.cluster import Demand, connect
from sdo_ray.settings import SettingsError
from tests.rollout.test_stream import expected_rows, rows_of, run_stream
from tests.support.streams import Meeting, MeetingSampler


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
