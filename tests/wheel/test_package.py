"""The installed package: every file of it, and none of a user's that has the same name."""

import shutil
import zipfile
from pathlib import Path

import pytest

from tests.support.installed import PACKAGES, REPOSITORY
from tests.wheel.conftest import Call

SETTINGS = """
run: {name: brighter}
model: {base: zoo://emoji}
sampling: {num_inference_steps: 2}
rewards: {terms: [{name: "my_rewards:Mine"}]}
rows: {given: [{prompt: sun}]}
optimization: {variable: latents, iterations: 1, learning_rate: 0.1}
samplers: {batch_size: 1}
"""


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


@pytest.mark.slow
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
