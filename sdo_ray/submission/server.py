"""Ray's job server on a cluster's head node: submit, find, follow and stop jobs.

A cluster that has just started refuses jobs until its head node's agent is registered, and a head node can be away for
a moment. Every call therefore waits for the server, says so, and gives up after a limit.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from sdo_ray.exit_codes import ExitCode
from sdo_ray.secrets import RedactedLines, kind_of_secret, redact
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.submission.identity import JobName

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

T = TypeVar("T")

NOT_READY = "No available agent"
"""How a cluster says that it has started, but cannot take jobs yet."""


CONTENT = "sdo.content"
"""The entry of a job's metadata that tells its files, command and variables from others."""


class ServerLost(RuntimeError):
    """The job server does not answer any more; what became of the job is not known."""


class JobServer:
    """A cluster's job server, with the token that RAY_AUTH_MODE=token makes Ray look for.

    Args:
        address: `http://HEAD:8265`.
        timeout: seconds to wait for a server that does not answer.
        say: takes a line about what is waited for.

    Raises:
        SettingsError: no address that can be, no server, or not the right token.
    """

    PAUSE = 2.0
    """Seconds between two attempts."""

    def __init__(self, address: str, timeout: float, say: Callable[[str], None]) -> None:
        from ray.job_submission import JobSubmissionClient

        if kind_of_secret("address", address):
            fix = "a cluster's token goes into the file RAY_AUTH_TOKEN_PATH"
            raise SettingsError(Problem("--address", "holds a secret", fix=fix))
        if not address.startswith(("http://", "https://")):
            legal = "it is the job server's URL on the head node, such as http://HEAD:8265"
            raise SettingsError(Problem("--address", f"got {address!r}", legal))
        for chatty in (
            "dashboard.modules.dashboard_sdk",
            "dashboard.modules.job.sdk",
            "_private.runtime_env.packaging",
        ):
            logging.getLogger(f"ray.{chatty}").setLevel(logging.WARNING)
        self._timeout, self._say = timeout, say
        # Ray prefers the environment to its argument.
        os.environ["RAY_API_SERVER_ADDRESS"] = address
        try:
            self._client: JobSubmissionClient = self._patiently(lambda: JobSubmissionClient(address), address)
        except ServerLost as error:
            got = f"{address} does not answer after {timeout:g} s: {error}"
            fix = "start the cluster, correct the address, or open a tunnel to it"
            raise SettingsError(Problem("--address", got, fix=fix)) from None

    def attempts(self, run: JobName) -> dict[JobName, JobDetails]:
        """The jobs of a run that the cluster remembers, those with other settings too, oldest first."""
        jobs = self._patiently(self._client.list_jobs, "the list of jobs")
        known = {name: job for job in jobs if (name := JobName.parse(job.submission_id)) and run.same_run(name)}
        return dict(sorted(known.items(), key=lambda item: (item[1].start_time or 0, item[0].attempt)))

    def submit(self, name: JobName, entrypoint: str, runtime_env: dict[str, Any], content: str) -> JobDetails:
        """Submit a job, or find it submitted by someone else in the meantime; the latter is no error.

        Args:
            name: its id.
            entrypoint: the command.
            runtime_env: files and variables.
            content: that all of this is known by, see `content_of`.
        """

        def once() -> JobDetails:
            try:
                self._client.submit_job(
                    submission_id=str(name),
                    entrypoint=entrypoint,
                    runtime_env=runtime_env,
                    metadata={"sdo.run": name.name, "sdo.attempt": str(name.attempt), CONTENT: content},
                )
            except RuntimeError as error:
                if "already exists" not in str(error):
                    raise
            return self._client.get_job_info(str(name))

        return self._patiently(once, "an agent on the head node")

    def info(self, name: JobName) -> JobDetails:
        """The job as it is now."""
        return self._patiently(lambda: self._client.get_job_info(str(name)), f"the state of {name}")

    def stop(self, name: JobName) -> JobDetails:
        """Stop a job and wait until it has ended."""
        self._patiently(lambda: self._client.stop_job(str(name)), f"stopping {name}")
        return self.wait(name)

    def wait(self, name: JobName) -> JobDetails:
        """Wait until a job has ended."""
        while not (job := self.info(name)).status.is_terminal():
            time.sleep(1)
        return job

    def follow(self, name: JobName, write: Callable[[str], None]) -> JobDetails:
        """Hand a job's output on as it comes, from its beginning, until it has ended; secrets are cut out."""
        written, lines = 0, RedactedLines(write)

        async def read() -> None:
            nonlocal written
            position = 0
            async for text in self._client.tail_job_logs(str(name)):
                # After a broken connection the output comes from its beginning again.
                self._heard = time.monotonic()
                new = text[max(0, written - position) :]
                position += len(text)
                if new:
                    lines.add(new)
                    written = position

        while True:
            # Once more after the job has ended: a connection may be closed without an error while it goes on.
            job = self.info(name)
            self._patiently(lambda: asyncio.run(read()), f"the output of {name}")
            if job.status.is_terminal():
                lines.end()
                return job
            time.sleep(self.PAUSE)

    def _patiently(self, ask: Callable[[], T], what: str) -> T:
        """The answer, once there is one.

        Raises:
            SettingsError: the token is missing or wrong.
            ServerLost: no answer within the limit.
        """
        import aiohttp
        import requests
        from ray.exceptions import AuthenticationError

        self._heard = said = began = time.monotonic()
        while True:
            try:
                return ask()
            except AuthenticationError as error:
                cause = " ".join(redact(error.message).split())[:200]
                fix = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a copy of the head node's ~/.ray/auth_token"
                got = f"the cluster asks for its token: {cause}"
                raise SettingsError(Problem("RAY_AUTH_MODE", got, fix=fix)) from None
            except (ConnectionError, requests.RequestException, aiohttp.ClientError, TimeoutError) as error:
                cause = " ".join(redact(str(error)).split())[:200]
            except RuntimeError as error:
                if NOT_READY not in str(error) and "WebSocket" not in str(error):
                    raise
                cause = NOT_READY
            now = time.monotonic()
            # From the last sign of life: an output may have been followed for hours before the connection broke.
            if now - self._heard > self._timeout:
                raise ServerLost(cause)
            if now - said > 10 or said == began:
                self._say(f"waiting for {what}: {cause}")
                said = now
            time.sleep(self.PAUSE)


def content_of(job: JobDetails) -> str | None:
    """What it was submitted with; None of a job of an earlier version."""
    return (job.metadata or {}).get(CONTENT)


def exit_code(job: JobDetails) -> int:
    """OK, INTERRUPTED for a job that was stopped, the driver's own for one that failed, UNFINISHED for others."""
    match job.status.value:
        case "SUCCEEDED":
            return ExitCode.OK
        case "STOPPED":
            return ExitCode.INTERRUPTED
        case "FAILED":
            return job.driver_exit_code or ExitCode.STOPPED
    return ExitCode.UNFINISHED
