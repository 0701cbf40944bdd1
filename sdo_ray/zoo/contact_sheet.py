"""Images side by side in one PNG."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def write_sheet(images: Tensor, path: Path, columns: int) -> None:
    """Writes images [n, 3, H, W] in [0, 1] as rows of `columns` images, under a temporary name first."""
    n, _, height, width = images.shape
    rows = -(-n // columns)
    canvas = torch.ones(3, rows * height, columns * width)
    for i, image in enumerate(images.cpu()):
        top, left = (i // columns) * height, (i % columns) * width
        canvas[:, top : top + height, left : left + width] = image
    pixels = (canvas * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    Image.fromarray(pixels).save(partial, format="PNG")
    os.replace(partial, path)
