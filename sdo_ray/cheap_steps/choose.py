"""From settings to what runs the steps without a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sdo_ray.backprop import StepRunner
from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.cheap_steps.diffusers_caches import enable_cache
from sdo_ray.cheap_steps.fast_copy import FastCopy
from sdo_ray.cheap_steps.held import held_modules
from sdo_ray.cheap_steps.runner import CheapRunner
from sdo_ray.cheap_steps.settings import CacheSettings, CopySettings
from sdo_ray.settings import Problem, SettingsError, under

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def choose_runner(
    pipeline: DiffusionPipeline, cache: CacheSettings | None, fast_copy: CopySettings | None, steps: int
) -> StepRunner | None:
    """What makes steps without a graph as the settings say; one of diffusers' caches is switched on for good.

    Args:
        pipeline: as loaded, with what is trained.
        cache: of its sampling, if any.
        fast_copy: likewise; it is made here, and follows what is trained.
        steps: `num_inference_steps` of its calls.

    Returns:
        For `runner` of `differentiable_sample`, or for `run_by`; None: the pipeline's own calls.

    Raises:
        SettingsError: the model cannot have it; of `cache` or `fast_copy`.
    """
    denoisers, held, copies = denoisers_of(pipeline), dict[str, list[str]](), dict[str, FastCopy]()
    with under("cache"):
        if cache is not None and cache.is_ours:
            held = {name: held_modules(denoiser, cache) for name, denoiser in denoisers.items()}
        elif cache is not None and fast_copy is not None:
            got = f"got {cache.name!r}, a cache in the denoiser itself, with `fast_copy`"
            raise SettingsError(Problem("name", got, fix="choose one of ours, such as 'taylor', or leave one out"))
        elif cache is not None:
            for denoiser in denoisers.values():
                enable_cache(pipeline, denoiser, cache, steps)
    if fast_copy is not None:
        with under("fast_copy"):
            copies = {name: FastCopy(name, denoiser, fast_copy) for name, denoiser in denoisers.items()}
    if not held and not copies:
        return None
    if cache is None:
        return CheapRunner(held, lambda num_steps: frozenset(range(num_steps)), 0, copies=copies)
    return CheapRunner(held, cache.computed, cache.degree, cache.tolerance, copies)


def copies_of(runner: StepRunner | None) -> list[torch.nn.Module]:
    """The copies of denoisers that a runner runs."""
    return [copy.module for copy in runner.copies.values()] if isinstance(runner, CheapRunner) else []
