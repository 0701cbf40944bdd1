"""The package as users install it: a wheel, nothing of this checkout on the path, and a home with nothing in it."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("pipelines", "rewards", "sdo_ray")
MINE = """
import torch

class Mine:
    differentiable = True

    def __call__(self, images, prompts):
        return images.mean((1, 2, 3))
"""
SETTINGS = """
run: {name: brighter}
model: {base: zoo://emoji}
sampling: {num_inference_steps: 2}
rewards: {terms: [{name: "my_rewards:Mine"}]}
rows: {given: [{prompt: sun}]}
optimization: {variable: latents, iterations: 1, learning_rate: 0.1}
samplers: {batch_size: 1}
"""
SHADOW = "raise SystemExit('a package of the user was imported')"

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(REPOSITORY / name, source)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", str(target), str(source)], check=True)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
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


def test_every_file_of_the_packages_is_in_it(wheel: Path) -> None:
    files = {
        path.relative_to(REPOSITORY).as_posix()
        for name in PACKAGES
        for path in (REPOSITORY / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"sdo_ray/py.typed", "rewards/py.typed", "pipelines/configs/emoji.yaml"} <= files
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == files


@pytest.mark.parametrize("path", ["", "."], ids=["as it is", "on PYTHONPATH"])
def test_a_users_own_packages_do_not_hide_these(call: Call, path: str) -> None:
    for command in (["sdo", "--help"], ["python", "-m", "sdo_ray", "--help"], ["sdo", "align", "--help"]):
        assert "usage: sdo" in call(*command, PYTHONPATH=path).stdout


def test_a_module_of_pipelines_beside_a_users_own_rewards(call: Call, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "work/pipelines")
    arguments = ("--model", "zoo://emoji", "--prompt", "sun", "--steps", "1", "--out", "sun.png")
    assert call("python", "-m", "pipelines.sample", *arguments).stdout == "sun.png\n"
    assert (tmp_path / "work/sun.png").stat().st_size > 0


def test_what_a_users_own_package_of_that_name_is_told(call: Call) -> None:
    code = """
import pipelines, sys
from pathlib import Path
from rewards.registry import RewardError, check
from sdo_ray.own_packages import find_modules_beside
find_modules_beside(Path("settings.yaml"))
check("my_rewards:Mine", {})
for name in ("rewards.mine:Mine", "rewards:Mine"):
    try:
        check(name, {})
    except RewardError as error:
        print(error)
"""
    (first, second) = call("python", "-P", "-c", code).stdout.splitlines()
    assert "no module 'rewards.mine'" in first
    assert "give your own folder or file another name" in first
    assert "module 'rewards' has no 'Mine'" in second
    assert "give your own module another name" in second


def test_workers_of_a_run_get_these_too_and_modules_beside_the_settings(call: Call) -> None:
    code = """
from pathlib import Path
from sdo_ray.own_packages import find_modules_beside, prefer_own_packages
prefer_own_packages()
find_modules_beside(Path("settings.yaml"))
import ray
from sdo_ray.cluster import Demand, connect
connect([Demand("task", 1, 1.0, 0.0)])

@ray.remote
def where():
    import my_rewards, pipelines, rewards
    packages = [Path(package.__file__).parents[1].name for package in (pipelines, rewards)]
    return [*packages, Path(my_rewards.__file__).parent.name]

print(*ray.get(where.remote()))
"""
    for path in ("", "."):
        assert call("python", "-c", code, PYTHONPATH=path).stdout == "site-packages site-packages work\n"


@pytest.mark.slow
def test_a_whole_job_there(call: Call, tmp_path: Path) -> None:
    (tmp_path / "work/settings.yaml").write_text(SETTINGS)
    said = call("sdo", "optimize", "settings.yaml").stdout
    assert "my_rewards:Mine" in said
    assert (tmp_path / "work/runs/brighter").is_dir()
