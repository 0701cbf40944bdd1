"""What a run of `sdo align` needs, before it is paid for: `sdo plan CONFIG [--gpu-memory GIB] [--tflops RATE]`.

Memory of a sampler in each way of keeping activations, of a trainer, and the operations of an update, found from the
model's configuration files at its true sizes: no weights are read, no GPU is used. With `--gpu-memory` what does not
fit is marked; with `--tflops`, what the GPU sustains, an update's time is said.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.job import add_change, add_set, ended, quiet
from sdo_ray.exit_codes import ExitCode
from sdo_ray.own_packages import find_modules_beside


def plan(config: Path, overrides: Sequence[str], memory: float | None, rate: float | None) -> int:
    """Do what the command line says.

    Raises:
        SettingsError: the settings are wrong, or the model's sizes cannot be found.
    """
    from sdo_ray.config.align import AlignSettings
    from sdo_ray.config.loading import load_settings
    from sdo_ray.sizing.report import needs_of

    find_modules_beside(config)
    for line in needs_of(load_settings(AlignSettings, config, overrides), memory, rate):
        print(line, flush=True)
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    quiet()
    parser = argparse.ArgumentParser(
        prog="sdo plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="a settings file of `sdo align`")
    parser.add_argument("--gpu-memory", type=float, metavar="GIB", help="GiB of a sampler's GPU")
    parser.add_argument("--tflops", type=float, metavar="RATE", help="10^12 operations a second that it sustains")
    add_set(parser)
    add_change(parser)
    given = parser.parse_args(arguments)
    return ended("plan", lambda: plan(given.config, given.overrides, given.gpu_memory, given.tflops))


if __name__ == "__main__":
    sys.exit(main())
