"""Make a small text-to-image model of captioned images: `sdo pretrain CONFIG`, `python -m pipelines.pretrain CONFIG`.

    parquet -> autoencoder -> latents, text embeddings -> UNet -> a directory that diffusers loads

The same command again continues a run that was stopped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from pipelines.job import run_job
from sdo_ray.exit_codes import ExitCode
from sdo_ray.zoo.settings import PretrainSettings


def check(settings: PretrainSettings) -> None:
    """Its settings are all that can be wrong before it starts."""


def job(settings: PretrainSettings) -> int:
    """Train, a line for every part; returns the exit code."""
    # Torch and diffusers take seconds to import; bad settings are refused without them.
    from sdo_ray.zoo.pretraining import pretrain

    pretrain(settings, lambda line: print(time.strftime("%H:%M:%S"), line, flush=True))
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_job("pretrain", arguments)


if __name__ == "__main__":
    sys.exit(main())
