"""The caches that diffusers has for its transformers, switched on by settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from diffusers.models.cache_utils import CacheMixin

from sdo_ray.backprop.caches import cache_hooks
from sdo_ray.cheap_steps.settings import CacheSettings
from sdo_ray.settings import Problem, SettingsError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

CONFIGS = {
    "taylorseer": diffusers.TaylorSeerCacheConfig,
    "pab": diffusers.PyramidAttentionBroadcastConfig,
    "first-block": diffusers.FirstBlockCacheConfig,
    "mag-cache": diffusers.MagCacheConfig,
    "faster-cache": diffusers.FasterCacheConfig,
}
"""Name in settings -> configuration class."""


def enable_cache(pipeline: DiffusionPipeline, denoiser: torch.nn.Module, cache: CacheSettings, steps: int) -> None:
    """Switch a cache on in a denoiser, for good.

    Args:
        pipeline: whose denoiser it is.
        denoiser: with what is trained.
        cache: one of diffusers'.
        steps: `num_inference_steps` of the calls.

    Raises:
        SettingsError: the denoiser has no caches, the options are none of this one's, or it finds nothing to hold.
    """
    kind, instead = type(denoiser).__name__, "choose 'taylor', which any model has, or 'modules'"
    if not isinstance(denoiser, CacheMixin):
        got = f"{cache.name!r} is for transformers that diffusers has caches for, and a {kind} is none of them"
        raise SettingsError(Problem("name", got, fix=instead))
    try:
        denoiser.enable_cache(_config(pipeline, denoiser, cache, steps))
    except SettingsError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        said = " ".join(str(error).split())[:300]
        raise SettingsError(Problem("options", f"{cache.name!r} of a {kind} cannot have them: {said}")) from None
    if not cache_hooks(denoiser):
        got = f"diffusers' {cache.name!r} finds none of the modules of a {kind} that it holds"
        raise SettingsError(Problem("name", got, fix=instead))


def _config(pipeline: DiffusionPipeline, denoiser: CacheMixin, cache: CacheSettings, steps: int) -> Any:
    config = CONFIGS[cache.name]
    legal = [
        f.name for f in dataclasses.fields(config) if not f.name.startswith("_") and not f.name.endswith("callback")
    ]
    if unknown := sorted(cache.options.keys() - {*legal}):
        got = f"{cache.name!r} takes no {', '.join(unknown)}"
        raise SettingsError(Problem("options", got, f"it takes {', '.join(legal)}", "remove or rename it"))
    ours: dict[str, Any] = {
        "taylor_factors_dtype": denoiser.dtype,
        "num_inference_steps": steps,
        "current_timestep_callback": _timestep_of(pipeline),
    }
    names = {f.name for f in dataclasses.fields(config)}
    return config(**{name: value for name, value in ours.items() if name in names} | cache.options)


def _timestep_of(pipeline: DiffusionPipeline) -> Callable[[], int]:
    def timestep() -> int:
        now = getattr(pipeline, "current_timestep", None)
        return -1 if now is None else int(now)

    return timestep
