"""From settings to what runs the steps without a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdo_ray.backprop import StepRunner
from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.cheap_steps.diffusers_caches import enable_cache
from sdo_ray.cheap_steps.held import held_modules
from sdo_ray.cheap_steps.runner import HoldingRunner
from sdo_ray.cheap_steps.settings import CacheSettings
from sdo_ray.settings import under

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def choose_runner(pipeline: DiffusionPipeline, cache: CacheSettings | None, steps: int) -> StepRunner | None:
    """What makes steps without a graph as the settings say; one of diffusers' caches is switched on for good.

    Args:
        pipeline: as loaded, with what is trained.
        cache: of its sampling, if any.
        steps: `num_inference_steps` of its calls.

    Returns:
        For `runner` of `differentiable_sample`, or for `run_by`; None: the pipeline's own calls.

    Raises:
        SettingsError: the model cannot have it; of `cache`.
    """
    if cache is None:
        return None
    denoisers = denoisers_of(pipeline)
    with under("cache"):
        if cache.is_ours:
            held = {name: held_modules(denoiser, cache) for name, denoiser in denoisers.items()}
            return HoldingRunner(held, cache.computed, cache.degree, cache.tolerance)
        for denoiser in denoisers.values():
            enable_cache(pipeline, denoiser, cache, steps)
    return None
