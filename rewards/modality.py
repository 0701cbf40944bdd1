"""The kinds of samples that there are, of which each reward judges one. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
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


SAMPLE_RATE = "sample_rate"
"""Option of rewards that have to know how fast the sounds that they are given are played: the model's, in a run."""


@dataclass(frozen=True)
class Made:
    """What a model makes."""

    modality: Modality = "any"
    """"any": other tensors, or it is not known."""

    sampling_rate: int | None = None
    """Of sounds, in Hz; None: its configuration does not say."""


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
