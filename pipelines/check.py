"""Check a settings file as its command would, and start nothing: `sdo check CONFIG [--as COMMAND] [--set a.b=c]`.

Settings, model, prompts, rewards, storage and MLflow are looked at and, for `align`, a tiny batch is tried, as before a
start. Exit codes: 0 nothing is wrong, 2 what is wrong, a line each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.commands import COMMANDS, commands_with_settings
from pipelines.job import add_change, add_set, ended, quiet
from sdo_ray.exit_codes import ExitCode
from sdo_ray.own_packages import find_modules_beside
from sdo_ray.settings import Problem, SettingsError

CHECKED = tuple(name for name, command in COMMANDS.items() if command.settings)
"""The commands whose settings can be checked."""


def command_of(settings: Mapping[str, Any], kinds: Mapping[str, Any]) -> str:
    """The command that settings are for, by their sections.

    Args:
        settings: as they were read.
        kinds: command -> class of its settings.

    Raises:
        SettingsError: more than one, or none, has these sections.
    """
    wrong = {}
    for name, kind in kinds.items():
        needed = {field for field, info in kind.model_fields.items() if info.is_required()}
        wrong[name] = len(needed - settings.keys()) + len(settings.keys() - kind.model_fields.keys())
    least = min(wrong.values())
    best = [name for name, count in wrong.items() if count == least]
    if len(best) > 1 or least >= len(settings):
        got = f"its sections {', '.join(sorted(settings)) or '(none)'} may be of {', '.join(best)}"
        raise SettingsError(Problem("--as", got, fix="say which, such as --as align"))
    return best[0]


def check(config: Path, command: str | None, overrides: Sequence[str]) -> int:
    """Do what the command line says.

    Raises:
        SettingsError: what is wrong.
    """
    from sdo_ray.config.loading import load_settings, read_settings
    from sdo_ray.secrets import read_secret_files, take_credentials_from_tracking_uri

    find_modules_beside(config)
    written = read_settings(config, overrides)
    name = command or command_of(written, commands_with_settings())
    settings = load_settings(COMMANDS[name].settings_class(), config, overrides)
    read_secret_files()
    take_credentials_from_tracking_uri()
    COMMANDS[name].driver().check(settings)
    print(f"nothing is wrong: `sdo {name} {config}` can start")
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    quiet()
    parser = argparse.ArgumentParser(
        prog="sdo check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="the settings file")
    parser.add_argument(
        "--as", dest="command", choices=CHECKED, help="the command that it is for; by default its sections tell"
    )
    add_set(parser)
    add_change(parser)
    given = parser.parse_args(arguments)
    return ended("check", lambda: check(given.config, given.command, given.overrides))


if __name__ == "__main__":
    sys.exit(main())
