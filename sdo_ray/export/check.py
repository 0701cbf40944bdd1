"""Whether what was exported has the effect that it has in the run: plain diffusers loads it, and draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sdo_ray.export.formats import Aligned, Format, load_written

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Draw = Callable[["DiffusionPipeline"], torch.Tensor]
"""Images in [0, 1] of a fixed call."""


class NoEffect(RuntimeError):
    """What was exported draws the base model's image, or another one than the adapter does."""


def look_at(model: Aligned, written: Mapping[Format, Path], draw: Draw) -> Iterator[str]:
    """Load each, draw, and compare; a line for each.

    Args:
        model: the base.
        written: format -> what was written.
        draw: makes the images.

    Raises:
        NoEffect: one draws the base's images, or two formats draw images that differ by more than the least of their
            differences from the base's.
    """
    base, first = draw(model.load_base()), None
    for form, place in written.items():
        pipeline = load_written(model, form, place)
        if pipeline is None:
            why = "diffusers does not read this file, or not as the programs do that it is for"
            yield f"{form}: {place}; not drawn with, as {why}"
            continue
        images = draw(pipeline)
        mean, most = _apart(images, base)
        if most == 0:
            raise NoEffect(f"{place} loads, and draws the base model's image: it has no effect")
        yield f"{form}: {place}; its image is {_levels(mean, most)} from the base's"
        if first is not None:
            mean_other, most_other = _apart(images, first)
            if mean_other > mean:
                raise NoEffect(
                    f"{place} draws another image than the formats before it: {_levels(mean_other, most_other)}"
                )
            yield f"{' ' * len(form)}  and {_levels(mean_other, most_other)} from the first format's"
        first = images if first is None else first


def _apart(images: torch.Tensor, others: torch.Tensor) -> tuple[float, float]:
    """Mean and largest distance in grey levels of 255."""
    apart = (images.float() - others.float()).abs() * 255
    return float(apart.mean()), float(apart.max())


def _levels(mean: float, most: float) -> str:
    return f"{mean:.3g} grey levels of 255 (at most {most:.3g})"
