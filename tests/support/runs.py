"""A small alignment run on a tiny model, and the real command as a subprocess."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
import yaml

from tests.support.ports import wait_until

REPOSITORY = Path(__file__).parents[2]


def tiny_settings(directory: Path, base: Path, **sections: dict[str, Any]) -> Path:
    """A settings file for a run of six updates in `directory`; `sections` change it, None removes."""
    pq.write_table(pa.table({"prompt": list("abcdefg")}), directory / "prompts.parquet")
    pq.write_table(pa.table({"prompt": list("hijklmn")}), directory / "heldout.parquet")
    settings: dict[str, Any] = {
        "run": {"name": "tiny", "storage": str(directory / "runs"), "seed": 3},
        "model": {"base": str(base), "lora": {"rank": 2, "alpha": 4.0, "targets": ["to_q", "to_v", "conv1"]}},
        "prompts": {"train": "prompts.parquet"},
        "sampling": {"num_inference_steps": 4, "guidance_scale": 2.0},
        "plan": {"name": "sdo", "options": {"K": 1}},
        "rewards": {
            "terms": [
                {"name": "tests.support.ink:Ink", "weight": 1.0},
                {"name": "tests.support.ink:Redness", "weight": 0.5, "cap": 1.0},
                {"name": "jpeg_compressibility", "weight": 0.0},
            ]
        },
        "samplers": {"count": 2, "batch_size": 2},
        "training": {"updates": 6, "batch_size": 8, "learning_rate": 0.01, "checkpoint_every": 2},
        "trainers": {"count": 2},
        "evaluation": {
            "prompts": "heldout.parquet",
            "num_prompts": 4,
            "evaluators": [{"name": "tests.support.ink:Smoothness"}],
        },
        "tracking": {"experiment": "tiny", "preview_every": 3, "preview_prompts": ["a", "b"]},
    }
    for section, changes in sections.items():
        settings[section] = {k: v for k, v in (settings[section] | changes).items() if v is not None}
    path = directory / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


class AlignProcess:
    """`python -m pipelines.align ...`, or another command or module, and its processes, the cluster's too.

    They are known by a mark in their environment.
    """

    def __init__(self, *arguments: str, command: str = "align", environment: dict[str, str] | None = None) -> None:
        self._mark = uuid.uuid4().hex
        # MLflow's client, used in this process by other tests, leaves its server's address in the environment.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "_MLFLOW_"))}
        self.environment = inherited | {"SDO_TEST_MARK": self._mark, "PYTHONUNBUFFERED": "1"} | (environment or {})
        self._process = subprocess.Popen(
            [sys.executable, "-m", command if "." in command else f"pipelines.{command}", *arguments],
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Who runs tests in the background of a shell has Ctrl-C switched off.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.output: list[str] = []

    def lines(self) -> Iterator[str]:
        """Lines as they are printed."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output.append(line)
            yield line

    def until(self, start: str) -> None:
        """Read until a line starts with `start`."""
        for line in self.lines():
            if line.startswith(start):
                return
        raise AssertionError(f"no line starts with {start!r}:\n{''.join(self.output)}")

    def finish(self, code: int = 0) -> str:
        """Read to the end; the exit code must be `code`. Returns all output."""
        for _ in self.lines():
            pass
        assert self._process.wait() == code, "".join(self.output)
        return "".join(self.output)

    def kill(self, title: str) -> int:
        """SIGKILL one worker process whose title contains `title`, once there is one; returns its process id."""
        found: list[psutil.Process] = []

        def found_some() -> bool:
            found[:] = [process for process in self._marked() if title in " ".join(process.cmdline())]
            return bool(found)

        wait_until(found_some, f"a process that is called {title!r}", 60, every=0.05)
        found[0].kill()
        return found[0].pid

    def send_signal(self, number: signal.Signals) -> None:
        """Send the driver alone a signal."""
        self._process.send_signal(number)

    def running(self) -> list[str]:
        """What is left of the driver and its cluster, by the starts of their command lines."""
        return [" ".join(process.cmdline())[:80] for process in self._marked() if process.status() != "zombie"]

    def kill_everything(self) -> None:
        """SIGKILL the driver and its whole cluster, as when a machine goes down."""
        for process in self._marked():
            process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_everything()

    def _marked(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SDO_TEST_MARK") == self._mark:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


def final_adapter(directory: Path) -> dict[str, torch.Tensor]:
    """The adapter in the last checkpoint of `tiny_settings`'s run."""
    last = sorted((directory / "runs/tiny/train").glob("checkpoint_*/adapter.safetensors"))[-1]
    return safetensors.torch.load_file(last)
