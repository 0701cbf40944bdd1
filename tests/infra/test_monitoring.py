"""Dashboard, alarms and scrape configuration speak of numbers that there are."""

import functools
import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from sdo_ray.training.gauges import GAUGES
from tests.support.ports import wait_until
from tests.support.ray_cluster import ray_cluster
from tests.support.runs import REPOSITORY, AlignProcess, tiny_settings

DIRECTORY = REPOSITORY / "infra/monitoring"
OWN = {f"ray_{name}" for name in GAUGES} | {"ray_sdo_reward_seconds_bucket"}
KUBERNETES_OWN = "kube_job_status_failed"
"""Of kube-state-metrics."""

RAYS_OWN = {"ray_data_num_external_outqueue_blocks", "ray_node_cpu_utilization", "ray_node_gpus_utilization"}
"""Of Ray itself; the last is exported where there are GPUs."""


def dashboard() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((DIRECTORY / "dashboard.json").read_text())
    return parsed


def queries() -> list[str]:
    found = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    found += [variable["query"] for variable in dashboard()["templating"]["list"] if variable["type"] == "query"]
    alerts = yaml.safe_load((DIRECTORY / "alerts.yml").read_text())
    return found + [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]


def names(query: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", query))


def test_every_number_asked_for_is_exported() -> None:
    asked = set().union(*(names(query) for query in queries()))
    assert asked <= OWN | RAYS_OWN
    assert asked >= OWN - {"ray_sdo_samples_learned_from"}
    assert all(names(query) or KUBERNETES_OWN in query for query in queries())


def test_what_hangs_before_its_first_update_or_vanishes_raises_an_alarm() -> None:
    alerts = yaml.safe_load((DIRECTORY / "alerts.yml").read_text())
    rules = {rule["alert"]: rule["expr"] for group in alerts["groups"] for rule in group["rules"]}
    assert names(rules["RunNeverBegan"]) == {"ray_sdo_updates_done", "ray_sdo_updates_planned"}
    assert "last_over_time" in rules["RunVanished"]
    assert KUBERNETES_OWN in rules["NightFailed"]


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    board = dashboard()
    assert board.keys() >= {"uid", "title", "schemaVersion", "panels", "templating", "time"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    cells = set()
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["description"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        taken = {(x, y) for x in columns for y in rows}
        assert not taken & cells
        cells |= taken
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def test_ray_tells_prometheus_where_its_nodes_are() -> None:
    config = yaml.safe_load((DIRECTORY / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["file_sd_configs"] == [{"files": ["/tmp/ray/prom_metrics_service_discovery.json"]}]
    assert [Path(name).name for name in config["rule_files"]] == ["alerts.yml"]


@pytest.mark.slow
def test_a_run_on_a_cluster_exports_them(tiny_base: Path, tmp_path: Path) -> None:
    settings = tiny_settings(
        tmp_path,
        tiny_base,
        rewards={
            "terms": [
                {"name": "tests.support.ink:Ink", "weight": 1.0, "options": {"seconds": 1.0}},
                {"name": "tests.support.ink:Redness", "weight": 0.5},
            ]
        },
        training={"updates": 30},
        trainers={"count": 1},
    )
    with ray_cluster(tmp_path) as cluster:
        address = cluster.gcs
        environment = {k: v for k, v in cluster.environment.items() if k.startswith("RAY_")} | {"RAY_ADDRESS": address}
        with AlignProcess(str(settings), environment=environment) as process:
            process.until("update  2/30")
            exported: dict[str, float] = {}

            def scraped(name: str) -> bool:
                text = urllib.request.urlopen(cluster.metrics, timeout=30).read().decode()
                for family in text_string_to_metric_families(text):
                    exported.update({sample.name: sample.value for sample in family.samples})
                return name in exported

            for name in sorted(OWN | RAYS_OWN - {"ray_node_gpus_utilization"}):
                wait_until(functools.partial(scraped, name), name, 120, every=2)
    assert exported["ray_sdo_updates_planned"] == 30
    assert 2 <= exported["ray_sdo_updates_done"] <= 30
    assert 0 < exported["ray_sdo_trainer_idle_share"] <= 1
    assert exported["ray_sdo_reward_seconds_bucket"] > 0
