"""The package as users install it: a wheel, nothing of this checkout on the path, and a home with nothing in it."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

MINE = """
import torch

class Mine:
    differentiable = True

    def __call__(self, images, prompts):
        return images.mean((1, 2, 3))
"""
SHADOW = "raise SystemExit('a package of the user was imported')"

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(installed: Path, tmp_path: Path) -> Call:
    """Runs a program of the environment in a directory that has a `pipelines` and a `rewards` of its own."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    for name in ("pipelines", "rewards"):
        (work / name).mkdir(parents=True)
        (work / name / "__init__.py").write_text(SHADOW)
    (work / "my_rewards.py").write_text(MINE)

    def run(program: str, *arguments: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {name: os.environ[name] for name in ("MKL_CBWR",)}
        environment = kept | {"HOME": str(home), "PATH": f"{installed}:/usr/bin:/bin"} | variables
        done = subprocess.run(
            [installed / program, *arguments], cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run
