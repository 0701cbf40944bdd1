"""Waiting for a job server that is not ready, or away: shown with a server that answers so."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import ray
from aiohttp import web

from sdo_ray.exit_codes import ExitCode
from sdo_ray.settings import SettingsError
from sdo_ray.submission.identity import JobName
from sdo_ray.submission.server import JobServer, ServerLost, exit_code
from tests.support.ports import free_port

NAME = JobName("align", "tiny", "0123abcd")
JOB = {"type": "SUBMISSION", "submission_id": str(NAME), "status": "RUNNING", "entrypoint": "true"}
Answer = tuple[int, object]
Serve = Callable[[list[Answer]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that answers submissions with the given answers, the last one for ever; returns its address."""
    servers = []

    def start(answers: list[Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                version = {"version": "4", "ray_version": ray.__version__, "ray_commit": "x", "session_name": "x"}
                self._send(200, version if self.path == "/api/version" else JOB)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._send(*(answers.pop(0) if len(answers) > 1 else answers[0]))

            def _send(self, code: int, body: object) -> None:
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(JobServer, "PAUSE", 0.05)
    for name in ("RAY_AUTH_MODE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "put back at the end")


AWAY: Answer = (500, "No available agent to submit job, please try again later.")
TAKEN: Answer = (200, {"job_id": str(NAME), "submission_id": str(NAME)})


def test_it_waits_for_an_agent_and_says_so(serve: Serve) -> None:
    said: list[str] = []
    server = JobServer(serve([AWAY, AWAY, AWAY, TAKEN]), 30, said.append)
    assert server.submit(NAME, "true", {}, "content").status == "RUNNING"
    assert said == ["waiting for an agent on the head node: No available agent"]


def test_it_gives_up_after_its_limit(serve: Serve) -> None:
    server = JobServer(serve([AWAY]), 0.3, lambda line: None)
    began = time.monotonic()
    with pytest.raises(ServerLost, match="No available agent"):
        server.submit(NAME, "true", {}, "content")
    assert 0.3 < time.monotonic() - began < 10


def test_a_job_that_is_there_already_is_found(serve: Serve) -> None:
    server = JobServer(
        serve([(500, f"ValueError: Job with submission_id {NAME} already exists.")]), 1, lambda line: None
    )
    assert server.submit(NAME, "true", {}, "content").submission_id == str(NAME)


def test_other_errors_are_not_tried_again(serve: Serve) -> None:
    server = JobServer(serve([(500, "the runtime environment is broken")]), 60, lambda line: None)
    with pytest.raises(RuntimeError, match="the runtime environment is broken"):
        server.submit(NAME, "true", {}, "content")


def test_no_server_at_all() -> None:
    with pytest.raises(SettingsError, match=r"--address: http://127\.0\.0\.1:\d+ does not answer after 0\.2 s"):
        JobServer(f"http://127.0.0.1:{free_port()}", 0.2, lambda line: None)


@contextmanager
def streaming(connections: list[str]) -> Iterator[str]:
    """A server whose job ends with the last of `connections`, each of which says how one to its output goes.

    One line is sent each 0.1 s, then "drop" cuts the connection and "close" closes it in good order.
    """
    opened = []

    async def version(_: web.Request) -> web.Response:
        body = {"version": "4", "ray_version": ray.__version__, "ray_commit": "x", "session_name": "x"}
        return web.json_response(body)

    async def job(_: web.Request) -> web.Response:
        return web.json_response(JOB | {"status": "RUNNING" if len(opened) < len(connections) else "SUCCEEDED"})

    async def tail(request: web.Request) -> web.WebSocketResponse:
        number = min(len(opened), len(connections) - 1)
        opened.append(number)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for i in range(10 * (number + 1)):
            await socket.send_str(f"line {i}\n")
            if i >= 10 * number:
                await asyncio.sleep(0.1)
        if connections[number] == "drop":
            assert request.transport is not None
            request.transport.abort()
        return socket

    app = web.Application()
    app.add_routes(
        [
            web.get("/api/version", version),
            web.get(f"/api/jobs/{NAME}", job),
            web.get(f"/api/jobs/{NAME}/logs/tail", tail),
        ]
    )
    loop, port = asyncio.new_event_loop(), free_port()

    runner = web.AppRunner(app)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize("first", ["drop", "close"])
def test_output_is_followed_over_a_broken_connection_later_than_the_limit(first: str) -> None:
    output: list[str] = []
    with streaming([first, "close"]) as address:
        server = JobServer(address, 0.5, lambda line: None)  # the first connection holds twice as long
        assert server.follow(NAME, output.append).status == "SUCCEEDED"
    assert "".join(output).split("\n") == [*(f"line {i}" for i in range(20)), ""]


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:6379", "ray://head:10001"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="it is the job server's URL"):
        JobServer(address, 1, lambda line: None)


def test_a_secret_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="--address: holds a secret") as refused:
        JobServer("http://:hunter2@head:8265", 1, lambda line: None)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "driver", "code"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 2, 2),
        ("FAILED", None, 1),
        ("STOPPED", None, 130),
        ("RUNNING", None, ExitCode.UNFINISHED),
    ],
)
def test_exit_codes(status: str, driver: int | None, code: int) -> None:
    from ray.job_submission import JobDetails

    assert exit_code(JobDetails(**JOB | {"status": status, "driver_exit_code": driver})) == code
