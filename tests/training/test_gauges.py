"""The numbers of a run, scraped from a real Ray metrics port as Prometheus does."""

import dataclasses
import urllib.request
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from rewards.pulls import Pull
from rewards.service import RewardActor
from sdo_ray.training.gauges import GAUGES, RunGauges
from tests.support.ports import free_port, wait_until
from tests.support.updates import report

Samples = dict[tuple[str, str | None], float]
"""(name without `ray_`, its tag besides the run) -> value."""


@pytest.fixture
def scrape() -> Iterator[Callable[[], Samples]]:
    port = free_port()
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _metrics_export_port=port)

    def read() -> Samples:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
        found: Samples = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith("ray_sdo_") and sample.labels.get("run", "emoji") == "emoji":
                    tag = sample.labels.get("reward") or sample.labels.get("part") or sample.labels.get("pair")
                    if "le" not in sample.labels:
                        found[sample.name.removeprefix("ray_"), tag] = sample.value
        return found

    yield read
    ray.shutdown()


def test_a_run_is_seen_from_outside(scrape: Callable[[], Samples]) -> None:
    with RunGauges("emoji", updates=5) as metrics:
        assert metrics._values["sdo_updates_done", ()] == 0  # a run that hangs before its first update is seen
        # The base report left one sample of eight out; the reward "b" had no finite score.
        metrics.observe(dataclasses.replace(report(0), seconds={"sampling": 2.0, "waiting": 3.0, "update": 4.0}))
        second = dataclasses.replace(report(1), num_skipped=0, seconds={"waiting": 1.0, "update": 4.0})
        pulls = {"a": Pull(images=2, pulling=2, squares=8.0)}
        second = dataclasses.replace(second, reward_health={"a": {"restarts": 2.0}})
        metrics.observe(dataclasses.replace(second, pulls=pulls, cosines={"a and b": -0.5}))
        actor = ray.remote(RewardActor).remote("jpeg_compressibility", {}, num_threads=1, device="cpu")
        images = np.full((2, 3, 16, 16), 0.5, np.float32)
        for _ in range(3):
            ray.get(actor.score.remote(images, ["a", "b"], False))

        def arrived() -> bool:
            seen = scrape()
            return ("sdo_reward_seconds_count", "jpeg_compressibility") in seen and ("sdo_policy_lag", None) in seen

        wait_until(arrived, "the metrics to be exported", 60)
        seen = scrape()
    assert {name for name, _ in seen if not name.startswith("sdo_reward_seconds")} == GAUGES.keys()
    assert seen["sdo_updates_planned", None] == 5
    assert seen["sdo_updates_done", None] == 2
    assert seen["sdo_reward_mean", None] == 1.5
    assert seen["sdo_score_mean", "a"] == 1.0
    assert ("sdo_score_mean", "b") not in seen  # nothing, rather than a number
    assert seen["sdo_reward_gradient_norm", "a"] == 2
    assert seen["sdo_reward_cosine", "a and b"] == -0.5
    assert seen["sdo_reward_restarts", "a"] == 2
    assert seen["sdo_policy_lag", None] == 1
    assert seen["sdo_gradient_norm", None] == 2
    assert seen["sdo_samples_learned_from", None] == 7
    assert seen["sdo_samples_skipped", None] == 0
    assert seen["sdo_samples_skipped_share", None] == pytest.approx(1 / 15)
    assert seen["sdo_trainer_idle_share", None] == 0.25
    assert seen["sdo_seconds", "waiting"] == 1
    assert seen["sdo_seconds", "sampling"] == 2  # the last value there was
    assert seen["sdo_reward_seconds_count", "jpeg_compressibility"] == 3
    assert 0 < seen["sdo_reward_seconds_sum", "jpeg_compressibility"] < 60
