"""The command line that all jobs share: CONFIG and `--set a.b=c`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from sdo_ray.config.loading import load_settings
from sdo_ray.secrets import read_secret_files, redact, take_credentials_from_tracking_uri
from sdo_ray.settings import Settings, SettingsError

S = TypeVar("S", bound=Settings)

BAD_INPUT = 2
"""Exit code when nothing was started because of bad input."""
STOPPED = 1
"""Exit code when the work began and could not end."""


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
    for chatty in ("mlflow", "alembic", "DeepSpeed", "ray.train"):
        logging.getLogger(chatty).setLevel(logging.ERROR)


def run_job(
    name: str,
    description: str,
    kind: type[S],
    job: Callable[[S], int],
    arguments: Sequence[str] | None,
    flags: Sequence[argparse.ArgumentParser] = (),
) -> int:
    """Parse the command line, load and check the settings, and run the job.

    Args:
        name: the command's.
        description: for its help.
        kind: its settings.
        job: what it does; returns its exit code.
        arguments: the command line, `sys.argv` if None.
        flags: parsers of flags that the job reads itself, shown in the help.

    Returns:
        The job's exit code, `BAD_INPUT` with every problem on a line of standard error, or `STOPPED` with the cause if
        MLflow failed while the job ran.
    """
    quiet()
    parser = argparse.ArgumentParser(prog=f"sdo {name}", description=description, parents=flags)
    parser.add_argument(
        "config", metavar="CONFIG", help="YAML file with the settings; docs/configuration.md lists them"
    )
    parser.add_argument(
        "--set", metavar="A.B=C", action="append", default=[], dest="overrides", help="change one setting; repeatable"
    )
    parsed = parser.parse_args(arguments)
    try:
        settings = load_settings(kind, parsed.config, parsed.overrides)
        read_secret_files()
        take_credentials_from_tracking_uri()
        return job(settings)
    except SettingsError as error:
        print(
            f"sdo {name} did not start:", *(f"  - {problem}" for problem in error.problems), sep="\n", file=sys.stderr
        )
        return BAD_INPUT
    except _mlflow_error() as error:
        print(f"\nsdo {name} stopped: MLflow: {redact(' '.join(str(error).split()))}", file=sys.stderr)
        print("What is done is kept; once mended, the same command goes on from there.", file=sys.stderr)
        return STOPPED


def _mlflow_error() -> type[Exception]:
    """What MLflow raises; asked for once something was raised, as its import is slow."""
    from mlflow.exceptions import MlflowException

    return MlflowException
