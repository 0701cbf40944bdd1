"""A job that does one thing: what its settings name, which usually goes wrong.

What takes seconds to import is imported by the deeds that need it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from pipelines.commands import COMMANDS, Command
from pipelines.job import quiet, run_job

quiet()  # before libraries that speak are imported, as `sdo` does

from sdo_ray.config.run import RunSettings  # noqa: E402
from sdo_ray.exit_codes import ExitCode  # noqa: E402
from sdo_ray.settings import Settings, SettingsError  # noqa: E402

SECRET = "hunter2"
URL = f"https://user:{SECRET}@mlflow.example.com/api/2.0/mlflow-artifacts/artifacts/a.png"


class TinySettings(Settings):
    """What it does."""

    run: RunSettings
    does: str = Field(description="A key of `DEEDS`, `refuse`, or anything else to do nothing.")
    more: Literal["something"] = "something"


def bad_settings() -> None:
    raise SettingsError("cluster: too small; add nodes.", "reward: cannot start; mend it.")


def mlflow() -> None:
    from mlflow.exceptions import MlflowException

    raise MlflowException(f"no answer\nfrom {URL}")


def artifacts() -> None:
    import requests

    response = requests.Response()
    response.status_code, response.reason, response.url = 500, "Internal Server Error", URL
    response.raise_for_status()


def given_up() -> None:
    from sdo_ray.training.group import RunGivenUp

    raise RunGivenUp("ValueError: this reward cannot score")


def training() -> None:
    from ray.train import TrainingFailedError

    raise TrainingFailedError("Training failed.\n\nRuntimeError: worker 1 died")


def lease() -> None:
    from sdo_ray.promotion.lock import LeaseOver

    raise LeaseOver("tiny", "the lock ran out")


def busy() -> None:
    from sdo_ray.driver.lock import AlreadyRunning

    raise AlreadyRunning("runs/tiny is being worked on by process 7")


def lost() -> None:
    from sdo_ray.submission.server import ServerLost

    raise ServerLost("no route")


def disk() -> None:
    raise OSError(28, "No space left on device")


def memory() -> None:
    raise MemoryError


def bug() -> None:
    raise KeyError("bug")


def interrupt() -> None:
    raise KeyboardInterrupt


def told_to_end() -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def wait() -> None:
    print("waiting", flush=True)
    time.sleep(600)


class Part:
    """An actor that raises, or dies."""

    def raises(self) -> None:
        """As a reward does that meets what it cannot score."""
        raise ValueError(f"this reward cannot score {URL}")

    def dies(self) -> None:
        """As when it is killed for its memory."""
        import os

        os._exit(1)


def ask(part: str) -> None:
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    ray.get(getattr(ray.remote(num_cpus=0)(Part).remote(), part).remote())


DEEDS: dict[str, Callable[[], None]] = {
    "settings": bad_settings,
    "mlflow": mlflow,
    "artifacts": artifacts,
    "given up": given_up,
    "training": training,
    "lease": lease,
    "busy": busy,
    "lost": lost,
    "disk": disk,
    "memory": memory,
    "bug": bug,
    "interrupt": interrupt,
    "told to end": told_to_end,
    "wait": wait,
    "raises": lambda: ask("raises"),
    "dies": lambda: ask("dies"),
}


def job(settings: TinySettings) -> int:
    """Do it."""
    if settings.does in DEEDS:
        DEEDS[settings.does]()
    return ExitCode.REFUSED if settings.does == "refuse" else ExitCode.OK


if __name__ == "__main__":
    COMMANDS["tiny"] = Command("do one thing", "tests.support.tiny_job", "tests.support.tiny_job:TinySettings")
    sys.exit(run_job("tiny"))
