"""The kinds of samples that there are, of which each reward judges one. Imports no torch."""

from collections.abc import Mapping
from typing import Literal

Modality = Literal["image", "video", "audio", "any"]

SHAPES: Mapping[str, tuple[str, ...]] = {
    "image": ("B", "3", "H", "W"),
    "video": ("B", "F", "3", "H", "W"),
    "audio": ("B", "C", "T"),
    "any": ("B", "..."),
}
"""Modality -> shape of its samples. Images and videos are in [0, 1], audio is in [-1, 1], and "any" is whatever the
pipeline makes: volumes, motions, spectra."""


def shape_of(modality: str) -> str:
    """The shape, for people."""
    return f"[{', '.join(SHAPES[modality])}]"


def named(modality: str) -> str:
    """Samples of a modality, for people."""
    return {"audio": "sounds", "any": "tensors"}.get(modality, f"{modality}s") + f" {shape_of(modality)}"


def fits(shape: tuple[int, ...], modality: str) -> bool:
    """Whether samples of a shape can be of a modality."""
    wanted = SHAPES[modality]
    if wanted[-1] == "...":
        return len(shape) >= len(wanted) - 1
    return len(shape) == len(wanted) and all(w != "3" or n == 3 for w, n in zip(wanted, shape, strict=True))
