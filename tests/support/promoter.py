"""`sdo promote` as a process of its own, started on a signal, and stopped where a test wants it.

python -m tests.support.promoter CONFIG [--hold]: reads a line from standard input once everything is imported; with
`--hold`, says "inside" when it holds the lock, and stays there.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).parents[2]


class Promoter:
    """The process.

    Args:
        config: the settings file.
        environment: names the MLflow server.
        hold: stay when the lock is held.
    """

    def __init__(self, config: Path, environment: dict[str, str], hold: bool = False) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.promoter", str(config), *(["--hold"] if hold else [])],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""

    def until(self, line: str) -> Self:
        """Read until it prints a line that starts so."""
        assert self.process.stdout is not None
        for found in self.process.stdout:
            self.output += found
            if found.startswith(line):
                return self
        raise AssertionError(f"it ended with {self.process.wait()} before {line!r}:\n{self.output}")

    def go(self) -> Self:
        """Let it start."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self

    def finish(self) -> int:
        """Read to the end; returns the exit code."""
        assert self.process.stdout is not None
        self.output += self.process.stdout.read()
        return self.process.wait()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.finish()


def _main(config: str, hold: bool) -> int:
    import mlflow
    import mlflow.store.artifact.mlflow_artifacts_repo  # noqa: F401

    import sdo_ray.promotion.promote as promotion
    from pipelines.promote import main

    if hold:

        def stay(*_: Any) -> None:
            print("inside", flush=True)
            time.sleep(600)

        promotion.make = stay  # type: ignore[assignment]
    print("ready", flush=True)
    sys.stdin.readline()
    return main([config])


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], "--hold" in sys.argv))
