"""Captioned images in two drawing styles, split by concept."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

GLOSSY = "fluent3d"
FLAT = "noto"


@dataclass(frozen=True)
class Images:
    """N captioned images."""

    images: Tensor
    """float32 [N, 3, H, W] in [0, 1]."""

    captions: list[list[str]]
    """Several captions each; the first is the label."""

    labels: list[str]
    """The concept that each shows."""

    styles: list[str]
    """`GLOSSY` or `FLAT`."""

    def style_pairs(self) -> Tensor:
        """int64 [P, 2]: the glossy and the flat image of each concept that has both, in order of label."""
        found: dict[str, dict[str, int]] = {}
        for i, (label, style) in enumerate(zip(self.labels, self.styles, strict=True)):
            found.setdefault(label, {})[style] = i
        pairs = [(both[GLOSSY], both[FLAT]) for _, both in sorted(found.items()) if {GLOSSY, FLAT} <= both.keys()]
        return torch.tensor(pairs, dtype=torch.int64).view(-1, 2)


def read_images(path: Path, split: str) -> Images:
    """Read one split, `train` or `heldout`, of a parquet table with columns image (a file), captions, label, style,
    split.

    Raises:
        ValueError: the table has no such split.
    """
    rows = pq.read_table(path, filters=[("split", "=", split)]).to_pylist()
    if not rows:
        raise ValueError(f"{path} has no images of split {split!r}")
    pixels = np.stack([np.asarray(Image.open(BytesIO(row["image"])).convert("RGB")) for row in rows])
    return Images(
        images=torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255,
        captions=[row["captions"] for row in rows],
        labels=[row["label"] for row in rows],
        styles=[row["style"] for row in rows],
    )
