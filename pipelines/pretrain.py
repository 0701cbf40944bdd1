"""Make a small text-to-image model of captioned images: `sdo pretrain CONFIG`, `python -m pipelines.pretrain CONFIG`.

    parquet -> autoencoder -> latents, text embeddings -> UNet -> a directory that diffusers loads

The same command again continues a run that was stopped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from pipelines.arguments import run_job
from sdo_ray.zoo.settings import PretrainSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns 0, or 2 after saying what is wrong with the settings."""
    return run_job("pretrain", "Make a small text-to-image model.", PretrainSettings, _job, arguments)


def _job(settings: PretrainSettings) -> int:
    # Torch and diffusers take seconds to import; bad settings are refused without them.
    from sdo_ray.zoo.pretraining import pretrain

    pretrain(settings, lambda line: print(time.strftime("%H:%M:%S"), line, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
