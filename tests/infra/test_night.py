"""The schedule's pod against a Kubernetes API of this test's own."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from sdo_ray.config.cycle import CycleSettings, check_cycle
from sdo_ray.config.loading import load_settings
from tests.infra import kuberay
from tests.support.runs import REPOSITORY

DIRECTORY = REPOSITORY / "infra/kuberay"


class Api:
    """RayJobs by name, and the states that each goes through, one a look."""

    def __init__(self, *states: dict[str, str]) -> None:
        self.jobs: dict[str, Any] = {}
        self.states = list(states)
        self.asked: list[str] = []


@pytest.fixture
def night(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    servers = []

    def start(api: Api) -> int:
        class Handler(BaseHTTPRequestHandler):
            def answer(self, code: int, body: Any) -> None:
                self.send_response(code)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def do_POST(self) -> None:
                job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.asked.append(f"POST {self.path}")
                known = job["metadata"]["name"] in api.jobs
                api.jobs.setdefault(job["metadata"]["name"], job)
                self.answer(409 if known else 201, {})

            def do_GET(self) -> None:
                state = api.states[0] if len(api.states) == 1 else api.states.pop(0)
                self.answer(500, {}) if state.get("jobDeploymentStatus") == "500" else self.answer(
                    200, {"status": state}
                )

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        variables = {
            "KUBERNETES": f"http://127.0.0.1:{server.server_port}",
            "NAME": "sdo-nightly",
            "NAMESPACE": "sdo",
            "RAYJOB": str(DIRECTORY / "run/rayjob.yaml"),
            "COMMAND": "tried sdo cycle /configs/x.yaml --set run.name=emoji-DAY --set run.seed=DAY",
            "JOB_NAME": "sdo-nightly-1",
            "JOB_UID": "abc",
            "DAY": "20261121",
            "EVERY": "0.01",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        code: dict[str, Any] = {"__name__": "night"}
        exec(compile((DIRECTORY / "schedule/night.py").read_text(), "night.py", "exec"), code)
        return int(code["main"]())

    yield start
    for server in servers:
        server.shutdown()


def test_a_night_is_made_and_waited_for(night: Any) -> None:
    api = Api(
        {}, {"jobDeploymentStatus": "Running"}, {"jobDeploymentStatus": "500"}, {"jobDeploymentStatus": "Complete"}
    )
    assert night(api) == 0
    (job,) = api.jobs.values()
    assert job["metadata"]["name"] == "sdo-nightly-20261121"
    assert job["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "sdo-nightly-1", "uid": "abc"}
    ]
    assert job["spec"]["entrypoint"].endswith("--set run.name=emoji-20261121 --set run.seed=20261121")
    kuberay.validate({**job, "metadata": {"name": job["metadata"]["name"]}})


@pytest.mark.parametrize(
    "state", [{"jobDeploymentStatus": "Failed"}, {"jobDeploymentStatus": "Complete", "jobStatus": "FAILED"}]
)
def test_a_night_that_fails_is_over_at_once(night: Any, state: dict[str, str]) -> None:
    assert night(Api({"jobDeploymentStatus": "Running"}, state)) == 1


def test_what_runs_is_never_replaced(night: Any) -> None:
    api = Api({"jobDeploymentStatus": "Complete"})
    api.jobs["sdo-nightly-20261121"] = mine = {"metadata": {"name": "sdo-nightly-20261121"}, "by": "hand"}
    assert night(api) == 0
    assert api.jobs == {"sdo-nightly-20261121": mine}
    assert api.asked == ["POST /apis/ray.io/v1/namespaces/sdo/rayjobs"]


def test_the_cycle_of_the_schedule_is_one() -> None:
    path = REPOSITORY / "pipelines/configs/cycle_emoji_cluster.yaml"
    settings = load_settings(CycleSettings, path, ["run.name=emoji-20261121", "run.seed=20261121"])
    assert check_cycle(settings) == "emoji-glossy"
    assert settings.evaluate.set["samplers.num_gpus"] == 1.0
