"""Run a command of sdo as a job of a Ray cluster: `sdo submit COMMAND CONFIG --address http://HEAD:8265 [--set a.b=c]`.

    settings checked here -> what they name packed -> Ray's job server -> `python -m sdo_ray COMMAND CONFIG`

The job is named after the run and its settings, so the same command again finds the job: it is attached to while it
runs, reported if it succeeded, and submitted once more if it failed or was stopped, to go on where the run was. A job
that runs or succeeded has the files and variables that it was submitted with; if they are others now, that is said.

The last line printed is JSON: action, submission_id, status, attempt, exit_code. The exit code is 0, or with --follow,
--status and --stop that of the job: its own, 130 if it was stopped, 75 while it has not ended. Bad input is 2; 69 is a
cluster that does not answer any more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.commands import COMMANDS
from pipelines.job import add_change, add_set, ended, quiet
from sdo_ray.config.loading import load_settings, read_settings
from sdo_ray.own_packages import find_modules_beside
from sdo_ray.secrets import redact
from sdo_ray.settings import Problem, Problems, SettingsError
from sdo_ray.submission.environment import job_environment
from sdo_ray.submission.identity import JobName
from sdo_ray.submission.package import Package, pack
from sdo_ray.submission.server import JobServer, content_of, exit_code

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

TAKING_SETTINGS = tuple(name for name, command in COMMANDS.items() if command.settings)
"""The commands that can be submitted."""


@dataclass(frozen=True)
class _Job:
    """What is submitted."""

    working: Path
    """The directory that files travel from."""
    named: set[Path]
    """What of it the settings name."""
    entrypoint: str
    variables: dict[str, str]


def submit(options: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code.

    Raises:
        SettingsError: bad input; nothing was submitted.
    """
    config = Path(options.config)
    settings = read_settings(config, options.overrides)
    run = JobName.of(options.command, settings, config.stem)
    if not options.address:
        fix = "give the cluster's job server, such as http://HEAD:8265, or set RAY_ADDRESS"
        raise SettingsError(Problem("--address", "", fix=fix))
    if not (options.status or options.stop):
        find_modules_beside(config)
        _check_settings(options, config)
        prepared = _prepare(options, config, settings)
    server = JobServer(options.address, options.timeout, _say)
    known = server.attempts(run)
    mine = [(name, job) for name, job in known.items() if name.same_settings(run)]
    name, job = mine[-1] if mine else (run, None)

    if options.status or options.stop:
        if job is None:
            raise SettingsError(Problem(str(run), "the cluster knows no such job", fix="submit it first"))
        if options.stop and not job.status.is_terminal():
            job = server.stop(name)
        _say(f"{name}: {redact((job.message or '').partition(chr(10))[0])}")
        return _report("stop" if options.stop else "status", name, job, exit_code(job))

    with tempfile.TemporaryDirectory() as temporary:
        package = pack(prepared.working, Path(temporary), prepared.named, options.include, options.exclude)
        content = _content(package, prepared)
        if job is not None and (job.status.value == "SUCCEEDED" or not job.status.is_terminal()):
            action = "complete" if job.status.is_terminal() else "attached"
            if content_of(job) not in (None, content):
                _say(f"{name}: it was submitted with other files, variables or --python, and has those")
        else:
            _refuse_rival(known, run)
            action = "submitted" if job is None else "resumed"
            name = run if job is None else name.next()
            _say(f"{name}: sending {package}; environment: {', '.join(prepared.variables) or 'none'}")
            environment = {"working_dir": temporary, "env_vars": prepared.variables}
            job = server.submit(name, prepared.entrypoint, environment, content)
    _say(f"{name}: {action}")
    if options.follow:
        job = server.follow(name, lambda text: print(text, end="", flush=True))
    return _report(action, name, job, exit_code(job) if options.follow else 0)


def _content(package: Package, job: _Job) -> str:
    text = json.dumps([package.sha256, job.entrypoint, job.variables], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _prepare(options: argparse.Namespace, config: Path, settings: dict[str, Any]) -> _Job:
    """What is submitted, checked as far as it can be here."""
    from sdo_ray.config.job_files import STAGES, check_places, named_files, settings_files

    working = Path(options.working_dir or config.parent).resolve()
    kinds = {name: COMMANDS[name].settings_class() for name in STAGES}
    files = settings_files(COMMANDS[options.command].settings_class(), config, settings, kinds)
    with Problems() as problems:
        with problems.of():
            check_places(files)
        named = set[Path]()
        with problems.of():
            named = named_files(files, working)
        if not config.resolve().is_relative_to(working):
            got = f"{str(working)!r} does not hold {str(config)!r}"
            problems.add(Problem("--working-dir", got, fix="name one that does"))
        with problems.of():
            variables = job_environment(options.env)
    inside = str(config.resolve().relative_to(working))
    command = [options.python, "-u", "-m", "sdo_ray", options.command, inside]
    for override in options.overrides:
        command += ["--set", override]
    return _Job(working, named, shlex.join(command), variables)


def _check_settings(options: argparse.Namespace, config: Path) -> None:
    """What the job would refuse, but for what only its nodes know."""
    # Not at the top: what only prints the help does not wait for torch.
    from sdo_ray.config.cycle import CycleSettings, check_cycle
    from sdo_ray.config.rewards import check_reward_names
    from sdo_ray.promotion.settings import PromoteSettings

    loaded = load_settings(COMMANDS[options.command].settings_class(), config, options.overrides)
    if isinstance(loaded, CycleSettings):
        check_cycle(loaded)
    elif isinstance(loaded, PromoteSettings):
        loaded.rules()
    check_reward_names(loaded)


def _refuse_rival(known: dict[JobName, JobDetails], run: JobName) -> None:
    """Two jobs must not write to one run's directory."""
    for name, job in known.items():
        if not name.same_settings(run) and not job.status.is_terminal():
            raise SettingsError(
                Problem(
                    "run.name",
                    f"{name} is {job.status.value.lower()}, a job of the run {run.name!r} with other settings",
                    fix="wait for it, stop it, or give this run another name",
                )
            )


def _report(action: str, name: JobName, job: JobDetails, code: int) -> int:
    line = {"action": action, "submission_id": str(name), "status": job.status.value, "attempt": name.attempt}
    print(json.dumps(line | {"exit_code": code}), flush=True)
    return code


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    quiet()
    parser = argparse.ArgumentParser(
        prog="sdo submit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "command", metavar="COMMAND", choices=TAKING_SETTINGS, help=f"one of {', '.join(TAKING_SETTINGS)}"
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file with the settings")
    add_set(parser)
    add_change(parser)
    parser.add_argument(
        "--address",
        metavar="URL",
        default=os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS"),
        help="of the job server on the head node; RAY_ADDRESS by default",
    )
    parser.add_argument(
        "--working-dir", metavar="DIR", help="holds prompts and your rewards; CONFIG's directory by default"
    )
    parser.add_argument(
        "--include",
        metavar="PATTERN",
        action="append",
        default=[],
        help="names, or paths below it, that travel besides what the settings name and *.py; repeatable",
    )
    parser.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[], help="names that do not travel; repeatable"
    )
    parser.add_argument(
        "--env",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        help="a variable for the job, as it is set here or as given; no secrets, but paths of files on the nodes that "
        "hold them; repeatable",
    )
    parser.add_argument("--python", default="python", help="the nodes' Python that has sdo-ray")
    parser.add_argument(
        "--timeout",
        "--patience",
        metavar="SECONDS",
        type=float,
        default=120.0,
        help="for a cluster that does not answer",
    )
    then = parser.add_mutually_exclusive_group()
    then.add_argument("--follow", action="store_true", help="print the job's output until it ends")
    then.add_argument("--status", action="store_true", help="submit nothing, say how the job is")
    then.add_argument("--stop", action="store_true", help="submit nothing, stop the job")
    options = parser.parse_args(arguments)
    return ended("submit", lambda: submit(options))


if __name__ == "__main__":
    sys.exit(main())
