"""Check this machine, and say how to mend what is found: `sdo doctor`.

One line a check: ok, a warning (works, with a limit) or a problem (a run will fail on it). The exit code is 1 if there
is a problem, else 0.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipelines.job import ended, quiet
from sdo_ray.doctor import machine, services, software
from sdo_ray.doctor.finding import Check, Level, run_check
from sdo_ray.exit_codes import ExitCode

CHECKS: tuple[Check, ...] = (
    software.python_version,
    software.required_packages,
    software.emoji_packages,
    software.torch_build,
    software.torchvision_absent_or_matching,
    machine.cpu_cores,
    machine.disk_space,
    machine.shared_memory,
    services.ray_starts,
    services.ray_cluster,
    services.mlflow_server,
)


def doctor(checks: Sequence[Check] = CHECKS) -> int:
    """Run the checks and print what each finds; returns 1 if there is a problem, else 0."""
    levels = []
    for check in checks:
        finding = run_check(check)
        print(finding, flush=True)
        levels.append(finding.level)
    problems, warnings = levels.count(Level.PROBLEM), levels.count(Level.WARNING)
    print(f"\n{len(levels)} checks: {problems} problems, {warnings} warnings")
    return ExitCode.STOPPED if problems else ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    quiet()
    argparse.ArgumentParser(
        prog="sdo doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(arguments)
    return ended("doctor", doctor)


if __name__ == "__main__":
    sys.exit(main())
