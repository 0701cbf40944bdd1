"""The skeleton of a job: read the command line and the settings, run, and end with a code and a line that says why.

    CONFIG, --set a.b=c -> settings -> pipelines.NAME, `job(settings)` -> exit code
                             |                |
                             +- one line each +- SettingsError: 2; anything else that is raised: a line, its traceback
                                                 in a file, and the exit code of `_ends`

Ray is shut down in every case.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pipelines.commands import COMMANDS, IF_BROKEN
from sdo_ray.exit_codes import ExitCode
from sdo_ray.interrupts import end_as_by_ctrl_c
from sdo_ray.own_packages import find_modules_beside
from sdo_ray.secrets import read_secret_files, redact, take_credentials_from_tracking_uri
from sdo_ray.settings import Problem, SettingsError

TRACEBACK = "traceback.txt"
"""Of the error that stopped a run last, in its directory."""


def run_job(
    name: str,
    arguments: Sequence[str] | None = None,
    flags: argparse.ArgumentParser | None = None,
    job: Callable[[Any], int] | None = None,
) -> int:
    """Parse the command line, read the settings, and run the job.

    Args:
        name: of the command.
        arguments: the command line, `sys.argv` if None.
        flags: a parser of flags that the job reads itself, shown in the help.
        job: what it does with the settings; returns its exit code. By default `job` of the command's module.

    Returns:
        The job's exit code, or the one of what stopped it; see `ended`.
    """
    quiet()
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(
        prog=f"sdo {name}",
        description=command.about(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[flags] if flags else [],
    )
    parser.add_argument(
        "config", metavar="CONFIG", help="YAML file with the settings; docs/configuration.md lists them"
    )
    add_set(parser)
    if name == "align":
        add_change(parser)
    given = parser.parse_args(arguments)

    def read_and_run() -> int:
        # Not at the top: what only prints the help does not wait for it.
        from sdo_ray.config.loading import load_settings, read_settings

        find_modules_beside(Path(given.config))
        read_settings(given.config, given.overrides)  # a file that is none is refused before the classes are imported
        settings = load_settings(command.settings_class(), given.config, given.overrides)
        read_secret_files()
        take_credentials_from_tracking_uri()
        work = job or command.driver().job
        return ended(name, lambda: work(settings), settings)

    return ended(name, read_and_run)


def add_set(parser: argparse.ArgumentParser) -> None:
    """The flag `--set A.B=C`, read as `overrides`."""
    parser.add_argument(
        "--set", metavar="A.B=C", action="append", default=[], dest="overrides", help="change one setting; repeatable"
    )


def add_change(parser: argparse.ArgumentParser) -> None:
    """The flag `--change A.B=C`, read into `overrides` beside those of `add_set`."""
    parser.add_argument(
        "--change",
        metavar="A.B=C",
        action=Change,
        help="the same, of an alignment run that has begun with another value: it goes on with this one",
    )


class Change(argparse.Action):
    """`--change A.B=C` is `--set A.B=C`, and A.B among `run.change`."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """See `argparse.Action`."""
        own = [*(getattr(namespace, self.dest) or ()), values.partition("=")[0]]
        setattr(namespace, self.dest, own)
        namespace.overrides = [*namespace.overrides, values, f"run.change=[{', '.join(own)}]"]


def printed(name: str, lines: Callable[[], Iterable[str]]) -> int:
    """Print what a command without a settings file says it has done, as it does it; returns its exit code.

    Args:
        name: of the command.
        lines: does the work.
    """

    def work() -> int:
        for line in lines():
            print(line, flush=True)
        return ExitCode.OK

    return ended(name, work)


def new_directory(flag: str, given: str) -> Path:
    """The directory that a flag names, which nothing may be in yet.

    Raises:
        SettingsError: of the flag.
    """
    out = Path(given).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingsError(Problem(flag, f"{str(out)!r} is there, and not empty", fix="name a new directory"))
    return out


def ended(name: str, work: Callable[[], int], settings: Any = None) -> int:
    """Do the work, whatever happens in it; shut Ray down.

    Args:
        name: of the command.
        work: returns its exit code.
        settings: of the run that is worked on, whose directory takes the traceback.

    Returns:
        The work's exit code, or the one of the error that ended it, said on standard error.
    """
    before = signal.getsignal(signal.SIGTERM)
    end_as_by_ctrl_c()
    try:
        return work()
    except SettingsError as error:
        _say(f"sdo {name} did not start:", *(f"  - {problem}" for problem in error.problems))
        return ExitCode.BAD_INPUT
    except KeyboardInterrupt:
        _say(f"\nsdo {name} was interrupted. {COMMANDS[name].kept.replace(IF_BROKEN, '')}")
        return ExitCode.INTERRUPTED
    except Exception as error:
        code, how = _ends(error)
        _say(f"\nsdo {name} {how}: {cause(error)}")
        kept = COMMANDS[name].kept
        if code == ExitCode.STOPPED:
            kept = f"{kept} The traceback is in {_keep_traceback(name, error, settings)}.".lstrip()
        if code != ExitCode.BUSY:  # of which it is another's to say
            _say(kept)
        return code
    finally:
        # A command that never needed Ray does not wait for its import now.
        if (ray := sys.modules.get("ray")) is not None:
            ray.shutdown()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def cause(error: BaseException) -> str:
    """What went wrong, in one line, secrets cut out."""
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    text = " ".join(str(error).split())
    if "ray" in packages:
        from sdo_ray.cluster import cause_of

        return cause_of(error)
    if packages & {"mlflow", "requests"}:  # the latter for artifacts; nothing else here asks by it
        return redact(f"MLflow: {text}")
    if packages & {"sdo_ray", "rewards", "pipelines"}:  # written for people
        return redact(text)
    return redact(f"{type(error).__name__}: {text}".removesuffix(": "))


def _ends(error: Exception) -> tuple[ExitCode, str]:
    """The exit code of what was raised, and what became of the command."""
    from sdo_ray.driver.lock import AlreadyRunning
    from sdo_ray.submission.server import ServerLost

    match error:
        case AlreadyRunning():
            return ExitCode.BUSY, "was not started"
        case ServerLost():
            return ExitCode.UNAVAILABLE, "lost the cluster, which does not answer any more"
    return ExitCode.STOPPED, "stopped"


def _keep_traceback(name: str, error: Exception, settings: Any) -> str:
    """Write it where it is found, without secrets; returns where."""
    text = redact("".join(traceback.format_exception(error)))
    if (run := getattr(settings, "run", None)) is not None:
        from sdo_ray.storage import RunDirectory

        try:
            return RunDirectory(run.storage, run.name).write(TRACEBACK, text.encode())
        except (OSError, SettingsError):
            pass  # the storage may be what is wrong
    with tempfile.NamedTemporaryFile("w", prefix=f"sdo-{name}-", suffix=f"-{TRACEBACK}", delete=False) as file:
        file.write(text)
    return str(Path(file.name))


def _say(*lines: str) -> None:
    print(*lines, sep="\n", file=sys.stderr, flush=True)


def quiet() -> None:
    """Leave the screen to the job: libraries speak of errors only, unless the user set them otherwise."""
    for library in ("transformers", "diffusers"):
        # They read the variable when they are imported, here and in other processes; they may have been already.
        if os.environ.setdefault(f"{library.upper()}_VERBOSITY", "error") == "error":
            logging.getLogger(library).setLevel(logging.ERROR)
    for variable, level in {
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }.items():
        os.environ.setdefault(variable, level)
    for chatty in ("mlflow", "alembic", "DeepSpeed", "ray.train", "torchao", "bitsandbytes", "torch.utils._pytree"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
