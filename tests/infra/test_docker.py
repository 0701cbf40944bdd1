"""The Dockerfiles pass hadolint, and hold what a linter does not know. No image is built here: that takes a daemon."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sdo_ray.secrets import kind_of_secret
from tests.support.runs import REPOSITORY

DOCKERFILES = sorted((REPOSITORY / "infra").rglob("Dockerfile"))
HADOLINT = str(Path(sys.executable).with_name("hadolint"))


def lint(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HADOLINT, "-"], input=text, capture_output=True, text=True, check=False)


def instructions(file: Path) -> list[str]:
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", file.read_text()))
    return [line for line in joined.splitlines() if line.strip()]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)
def test_the_linter_finds_nothing(file: Path) -> None:
    done = lint(file.read_text())
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("mistake", "rule"),
    [
        ("FROM python:latest\n", "DL3007"),
        ("FROM python:3.11\nRUN cd /tmp\n", "DL3003"),
        ("FROM python:3.11\nUSER root\n", "DL3002"),
        ("FROM python:3.11\nRUN apt-get install vim\n", "DL3008"),
        ("FROM python:3.11\nCOPY a b c\n", "DL3021"),
    ],
)
def test_the_linter_can_find_something(mistake: str, rule: str) -> None:
    done = lint(mistake)
    assert done.returncode != 0
    assert rule in done.stdout


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)
def test_images_are_not_root_pinned_and_hold_no_secrets(file: Path) -> None:
    lines = instructions(file)
    assert [line for line in lines if line.startswith("USER ")][-1] == "USER 1000:1000"
    for line in lines:
        if line.startswith("FROM ") and "${" not in line:
            assert re.match(r"FROM [\w./-]+:[\d.]+[\w.-]*( AS [\w-]+)?$|FROM [a-z-]+ AS [\w-]+$", line), line
        if line.startswith(("ENV ", "ARG ")):
            for name, value in re.findall(r"(\w+)=(\S+)", line):
                assert not kind_of_secret(name, value), line
        if "pip install" in line:
            assert "--constraint constraints.txt" in line
            assert line.count("pip install") == line.count("--constraint constraints.txt")


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)
def test_only_what_is_listed_goes_in(file: Path) -> None:
    ignore = file.with_name("Dockerfile.dockerignore").read_text().splitlines()
    ignore = [line for line in ignore if line and not line.startswith("#")]
    assert ignore[0] == "**"
    listed = {line[1:] for line in ignore if line.startswith("!")}
    copied = {
        source.rstrip("/")
        for line in instructions(file)
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert {
        source for source in copied if not any(source == part or source.startswith(f"{part}/") for part in listed)
    } == set()
    assert {
        part for part in listed if not any(source == part or source.startswith(f"{part}/") for source in copied)
    } == set()
    for source in copied:
        assert (REPOSITORY / source).exists()


def test_the_server_has_a_health_check() -> None:
    assert any(line.startswith("HEALTHCHECK ") for line in instructions(REPOSITORY / "infra/mlflow/Dockerfile"))


@pytest.mark.parametrize(
    ("codes", "code", "calls"), [([0], 0, 1), ([3], 0, 1), ([2], 2, 1), ([4], 4, 1), ([1, 0], 0, 2), ([1, 1, 9], 9, 3)]
)
def test_exit_codes_for_schedulers(tmp_path: Path, codes: list[int], code: int, calls: int) -> None:
    """Bad input and refusals are not tried again; what fails is, three times in all."""
    (tmp_path / "codes").write_text("\n".join(map(str, codes)))
    command = tmp_path / "sdo"
    command.write_text('#!/bin/sh\ncd "$1"; code=$(head -1 codes); sed -i 1d codes; echo called; exit $code\n')
    command.chmod(0o755)
    tried = [str(REPOSITORY / "infra/docker/tried.sh"), str(command), str(tmp_path)]
    done = subprocess.run(
        tried, env={"TRIED_PAUSE": "0", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.count("called")) == (code, calls)
