"""Makes a small text-to-image model from captioned pictures: `python -m pipelines.pretrain CONFIG [--set a.b=c]`.

The same command again continues a run that was stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from sdo_ray.config.loading import load_settings
from sdo_ray.settings import SettingsError
from sdo_ray.zoo.pretraining import pretrain
from sdo_ray.zoo.settings import PretrainSettings


def main(argv: list[str] | None = None) -> int:
    """Runs the job; returns 0, or 2 after saying what is wrong with the settings."""
    parser = argparse.ArgumentParser(prog="pretrain", description=__doc__)
    parser.add_argument("config", type=Path, help="YAML file, as pipelines/configs/pretrain_emoji.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="replaces one setting")
    args = parser.parse_args(argv)
    try:
        settings = load_settings(PretrainSettings, args.config, args.set)
        pretrain(settings, lambda line: print(time.strftime("%H:%M:%S"), line, flush=True))
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
