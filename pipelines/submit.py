"""Run a command of sdo as a job of a Ray cluster: `sdo submit COMMAND CONFIG --address http://HEAD:8265 [--set a.b=c]`.

    settings checked here -> working directory packed -> Ray's job server -> `python -m sdo_ray COMMAND CONFIG`

The job is named after the run and its settings, so the same command again finds the job: it is attached to while it
runs, reported if it succeeded, and submitted once more if it failed or was stopped, to go on where the run was.

The last line printed is JSON: action, submission_id, status, attempt, exit_code. The exit code is 0, or with --follow,
--status and --stop that of the job: its own, 130 if it was stopped, 75 while it has not ended. Bad input is 2; 69 is a
cluster that does not answer any more.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.commands import COMMANDS
from pipelines.job import add_set, ended, quiet
from sdo_ray.config.loading import load_settings, read_settings
from sdo_ray.own_packages import find_modules_beside
from sdo_ray.secrets import redact
from sdo_ray.settings import Problem, Problems, SettingsError, relative_paths
from sdo_ray.submission.environment import job_environment
from sdo_ray.submission.identity import JobName
from sdo_ray.submission.package import pack
from sdo_ray.submission.server import JobServer, exit_code

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

TAKING_SETTINGS = tuple(name for name, command in COMMANDS.items() if command.settings)
"""The commands that can be submitted."""


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
        load_settings(COMMANDS[options.command].settings_class(), config, options.overrides)
        working, entrypoint, variables = _prepare(options, config, settings)
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

    if job is not None and job.status.value == "SUCCEEDED":
        action = "complete"
    elif job is not None and not job.status.is_terminal():
        action = "attached"
    else:
        _refuse_rival(known, run)
        action = "submitted" if job is None else "resumed"
        name = run if job is None else name.next()
        with tempfile.TemporaryDirectory() as temporary:
            package = pack(working, Path(temporary), options.exclude)
            _say(f"{name}: sending {package}; environment: {', '.join(variables) or 'none'}")
            job = server.submit(name, entrypoint, {"working_dir": temporary, "env_vars": variables})
    _say(f"{name}: {action}")
    if options.follow:
        job = server.follow(name, lambda text: print(text, end="", flush=True))
    return _report(action, name, job, exit_code(job) if options.follow else 0)


def _prepare(options: argparse.Namespace, config: Path, settings: dict[str, Any]) -> tuple[Path, str, dict[str, str]]:
    """The working directory, the job's command line and its environment, checked as far as they can be here."""
    working = Path(options.working_dir or config.parent).resolve()
    inside = config.resolve()
    with Problems() as problems:
        with problems.of():
            _check_storage(options.command, settings)
        with problems.of():
            _check_paths(options.command, config, working, settings)
        if not inside.is_relative_to(working):
            got = f"{str(working)!r} does not hold {str(config)!r}"
            problems.add(Problem("--working-dir", got, fix="name one that does"))
        with problems.of():
            variables = job_environment(options.env)
    command = [options.python, "-u", "-m", "sdo_ray", options.command, str(inside.relative_to(working))]
    for override in options.overrides:
        command += ["--set", override]
    return working, shlex.join(command), variables


def _check_storage(command: str, settings: dict[str, Any]) -> None:
    storage = (settings.get("run") or {}).get("storage", "runs")
    kind = COMMANDS[command].settings_class()
    if "run" in kind.model_fields and "://" not in storage and not Path(storage).is_absolute():
        raise SettingsError(
            Problem(
                "run.storage",
                f"{storage!r} is relative, and a job's directory goes away with the cluster",
                fix="name storage that all nodes write, by an absolute path or a URI such as s3://bucket/path",
            )
        )


def _check_paths(command: str, config: Path, working: Path, settings: dict[str, Any]) -> None:
    with Problems() as problems:
        for found in relative_paths(COMMANDS[command].settings_class(), settings):
            # A path in the file starts at the file, one given by --set where the job starts: at the working directory.
            places = [(start / found.path).resolve() for start in (config.parent, working)]
            if not any(place.exists() and place.is_relative_to(working) for place in places):
                got = f"{found.path!r} is not in {str(working)!r}, which is what travels"
                fix = "put it there, or name a --working-dir that holds it"
                problems.add(Problem(found.setting, got, fix=fix))


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
    parser.add_argument(
        "--address",
        metavar="URL",
        default=os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS"),
        help="of the job server on the head node; RAY_ADDRESS by default",
    )
    parser.add_argument(
        "--working-dir", metavar="DIR", help="what travels: prompts, your rewards; CONFIG's directory by default"
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
