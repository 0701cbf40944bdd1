"""The package as users install it: a wheel, nothing of this checkout on the path, and a home with nothing in it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("pipelines", "rewards", "sdo_ray")
MINE = """
import torch

class Mine:
    differentiable = True

    def __call__(self, images, prompts):
        return images.mean((1, 2, 3))
"""
SHADOW = "raise SystemExit('a package of the user was imported')"

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(REPOSITORY / name, source)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", str(target), str(source)], check=True)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel; other packages are those of this one."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin/python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    packages = next(environment.glob("lib/python*/site-packages"))
    # Directories alone: what else lies in them, such as an editable install of this checkout, is not started.
    (packages / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return environment / "bin"


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
