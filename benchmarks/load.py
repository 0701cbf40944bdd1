"""What it takes a sampler's process to import what it needs, and to load a base model from files that were just read.

    python -m benchmarks.load DIRECTORY [--dtype bfloat16] [--device cuda]

A sampler that starts anew on its node finds the files in the page cache, as here at the second time. Files are mapped,
and come as they are used: each of the weights is read once. `python -m benchmarks.whole_run` writes models of published
size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

IMPORTING = time.monotonic()

import torch  # noqa: E402

from sdo_ray.models.load import load_pipeline  # noqa: E402
from sdo_ray.rollout import sampler  # noqa: E402, F401

IMPORTED = time.monotonic()


def main(arguments: Sequence[str] | None = None) -> None:
    """Load it twice, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(arguments)
    print(f"imports {IMPORTED - IMPORTING:.1f} s")
    for attempt in ("first", "again"):
        began = time.monotonic()
        pipeline = load_pipeline(given.directory, given.dtype, given.device)
        parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
        size = sum(weights.clone().nbytes for part in parts for weights in part.state_dict().values())
        print(f"{attempt}: {size / 2**30:.2f} GiB in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
