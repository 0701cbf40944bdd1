"""What the training scripts share: features of many images, the command line, and writing a head."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from rewards.features import ImageFeatures
from rewards.fitting.variants import Variant
from rewards.towers.checkpoint import sha256


def arguments(description: str) -> argparse.Namespace:
    """The command line: `images`, `out` and `heldout`. Sets one thread, so that sums always run in the same order."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--images", type=Path, required=True, help="parquet table of captioned images")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .safetensors")
    parser.add_argument(
        "--heldout", action="store_true", help="make the held-out evaluator instead, from the held-out concepts"
    )
    torch.set_num_threads(1)
    return parser.parse_args()


@torch.no_grad()
def extract(features: ImageFeatures, images: Tensor, variant: Variant) -> Tensor:
    """Features, float64 [N, 1280], of one variant of images [N, 3, H, W]."""
    return torch.cat([features(batch) for batch in variant(images).split(32)]).double()


def write_head(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a head as float16 and print its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, sha256 {sha256(path)}")
