"""The DAG in a real Airflow, which has an environment of its own as its packages do not agree with ours."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runs import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def airflow(pytestconfig: pytest.Config) -> Path:
    """Airflow's `bin`; installed once, beside pytest's other caches."""
    home = Path(os.environ.get("SDO_AIRFLOW") or pytestconfig.cache.mkdir("airflow") / "venv")
    if not (home / "bin/airflow").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        install = [str(home / "bin/pip"), "install", "--quiet", "apache-airflow==3.3.2"]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"Airflow could not be installed: {done.stderr.splitlines()[-1:]}")
    return home / "bin"


@pytest.fixture
def environment(airflow: Path, tmp_path: Path) -> dict[str, str]:
    """A new Airflow with our DAG, and a `sdo` that writes down how it was called."""
    dags = tmp_path / "airflow/dags"
    dags.mkdir(parents=True)
    (dags / "sdo_align.py").write_text((REPOSITORY / "infra/airflow/sdo_align.py").read_text())
    sdo = tmp_path / "bin/sdo"
    sdo.parent.mkdir()
    sdo.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" RAY_AUTH_MODE=$RAY_AUTH_MODE >> {tmp_path}/calls\n')
    sdo.chmod(0o755)
    variables = {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "SDO_BIN": str(sdo.parent),
        "SDO_CONFIG": "/settings/my.yaml",
        "SDO_ADDRESS": "http://head:8265",
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    }
    return os.environ | variables | {"PATH": f"{airflow}:{os.environ['PATH']}"}


def run(environment: dict[str, str], *arguments: str) -> None:
    command, here = ["airflow", *arguments], environment["SDO_BIN"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=here)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


INSPECT = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
dag = bag.dags["sdo_align"]
task = dag.get_task("align")
print(json.dumps({
    "errors": {str(k): str(v) for k, v in bag.import_errors.items()}, "max_active_runs": dag.max_active_runs,
    "catchup": dag.catchup, "schedule": dag.schedule, "retries": task.retries, "tasks": dag.task_ids,
}))
"""


def test_airflow_loads_it_with_retries_and_without_overlap(airflow: Path, environment: dict[str, str]) -> None:
    dags = f"{environment['AIRFLOW_HOME']}/dags"
    done = subprocess.run(
        [str(airflow / "python"), "-c", INSPECT, dags], env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {
        "errors": {},
        "max_active_runs": 1,
        "catchup": False,
        "schedule": "0 1 * * *",
        "retries": 3,
        "tasks": ["align"],
    }


def test_airflow_runs_it(environment: dict[str, str], tmp_path: Path) -> None:
    run(environment, "db", "migrate")
    run(environment, "dags", "test", "sdo_align", "2026-11-20")
    assert (tmp_path / "calls").read_text().splitlines() == [
        *("submit", "align", "/settings/my.yaml", "--address", "http://head:8265"),
        *("--env", "MLFLOW_TRACKING_URI", "--follow", "--set", "run.name=nightly-20261120", "RAY_AUTH_MODE=token"),
    ]
