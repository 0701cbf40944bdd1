"""Which modules of a denoiser are held at the steps that are not computed, by the name of the way to do it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from sdo_ray.cheap_steps.settings import CacheSettings
from sdo_ray.settings import Problem, SettingsError


def held_modules(denoiser: torch.nn.Module, cache: CacheSettings) -> list[str]:
    """The names of the modules that are held; "" is the denoiser itself.

    Args:
        denoiser: of a pipeline.
        cache: one of ours.

    Raises:
        SettingsError: the denoiser has no such modules.
    """
    match cache.name:
        case "taylor" | "cg-taylor" | "guidance":
            return [""]
        case "deepcache":
            return _deepcache(denoiser)
        case "faster-diffusion":
            return _encoder(denoiser)
    return matching_modules(denoiser, cache.modules)


def first_block(denoiser: torch.nn.Module) -> str:
    """The name of the first of a denoiser's blocks: what it computes first of what costs.

    Raises:
        SettingsError: it has no list of blocks.
    """
    for name, blocks in denoiser.named_children():
        if isinstance(blocks, torch.nn.ModuleList) and len(blocks) and isinstance(blocks[0], torch.nn.Module):
            return f"{name}.0"
    got = f"'cg-taylor' looks at a denoiser's first block, and a {type(denoiser).__name__} has no list of blocks"
    raise SettingsError(Problem("name", got, fix="choose 'taylor', which any model has"))


def matching_modules(denoiser: torch.nn.Module, patterns: Sequence[str]) -> list[str]:
    """The modules whose whole names match a regular expression, those inside of others left out.

    Raises:
        SettingsError: a pattern matches none, or is no regular expression.
    """
    found: list[str] = []
    for pattern in patterns:
        try:
            names = [name for name, _ in denoiser.named_modules() if name and re.fullmatch(pattern, name)]
        except re.error as error:
            raise SettingsError(Problem("modules", f"{pattern!r} is no regular expression: {error}")) from None
        if not names:
            children = ", ".join(name for name, _ in denoiser.named_children())
            got = f"no module's whole name in a {type(denoiser).__name__} matches {pattern!r}"
            raise SettingsError(Problem("modules", got, f"its outermost modules are {children}", "change it"))
        found += [name for name in names if name not in found]
    return [name for name in found if not any(name.startswith(f"{other}.") for other in found)]


def _deepcache(unet: torch.nn.Module) -> list[str]:
    """All but the first level down and the last level up (DeepCache, arXiv 2312.00858)."""
    down, up = _levels(unet, "deepcache")
    return [*(f"down_blocks.{i}" for i in range(1, down)), "mid_block", *(f"up_blocks.{i}" for i in range(up - 1))]


def _encoder(unet: torch.nn.Module) -> list[str]:
    """The encoder, with what it hands to the decoder (Faster Diffusion, arXiv 2312.09608)."""
    down, _ = _levels(unet, "faster-diffusion")
    return ["conv_in", *(f"down_blocks.{i}" for i in range(down)), "mid_block"]


def _levels(unet: torch.nn.Module, name: str) -> tuple[int, int]:
    """How many blocks lead down and up."""
    down, up = getattr(unet, "down_blocks", ()), getattr(unet, "up_blocks", ())
    if len(down) < 2 or len(up) < 2 or getattr(unet, "mid_block", None) is None or not hasattr(unet, "conv_in"):
        got = f"{name!r} is for UNets of two levels or more, and the denoiser is a {type(unet).__name__}"
        raise SettingsError(Problem("name", got, fix="choose 'taylor', which any model has"))
    return len(down), len(up)
