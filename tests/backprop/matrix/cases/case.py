"""A pipeline class and what differs from what `assemble` makes of it by itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ..assemble import image
from ..parts import part
from ..text import WIDTH


@dataclass(frozen=True)
class Case:
    """A pipeline class and what is particular to it.

    Attributes:
        parts: constructor arguments, or functions that make them.
        call: arguments of the call; `...` leaves one out.
    """

    parts: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, Case] = {}


def family(names: str, parts: dict[str, Any] | None = None, **call: Any) -> None:
    """The same particulars for several classes, named without their "Pipeline", on top of earlier ones."""
    for name in names.split():
        before = CASES.get(name, Case())
        CASES[name] = Case(before.parts | (parts or {}), before.call | call)


def tiny(cls: str, **changes: Any) -> Callable[[], torch.nn.Module]:
    return partial(part, cls, **changes)


def unet(**changes: Any) -> Callable[[], torch.nn.Module]:
    return tiny("UNet2DConditionModel", **changes)


FRAMES = [image(i) for i in range(5)]
ROW = torch.linspace(-1, 1, WIDTH).reshape(1, WIDTH)
IMAGE_EMBEDS = {"image_embeds": ROW, "negative_image_embeds": -ROW}
# For pipelines whose prompt cleaning needs a package of its own (ftfy).
EMBEDDED = {"prompt": None, "prompt_embeds": torch.linspace(-1, 1, 16 * WIDTH).reshape(1, 16, WIDTH)}
EMBEDDED |= {"negative_prompt_embeds": -EMBEDDED["prompt_embeds"]}
# An autoencoder whose latents are an eighth of its images, as of published ones.
BLOCKS_4 = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
VAE_8 = {"vae": tiny("AutoencoderKL", block_out_channels=(8,) * 4, **BLOCKS_4)}
