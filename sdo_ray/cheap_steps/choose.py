"""From settings to what runs the steps without a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from sdo_ray.backprop import StepRunner
from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.cheap_steps.diffusers_caches import enable_cache
from sdo_ray.cheap_steps.fast_copy import FastCopy
from sdo_ray.cheap_steps.held import first_block, held_modules
from sdo_ray.cheap_steps.runner import CheapRunner
from sdo_ray.cheap_steps.settings import CacheSettings, CopySettings
from sdo_ray.settings import Problem, SettingsError, under

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


GATE = 0.1
"""Relative error of the first block above which `cg-taylor` computes a step, by default."""


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
    if cache is not None and not cache.is_ours:
        with under("cache"):
            if fast_copy is not None:
                got = f"got {cache.name!r}, a cache in the denoiser itself, with `fast_copy`"
                raise SettingsError(Problem("name", got, fix="choose one of ours, such as 'taylor', or leave one out"))
            for denoiser in denoisers_of(pipeline).values():
                enable_cache(pipeline, denoiser, cache, steps)
        return None
    copies = dict[str, FastCopy]()
    if fast_copy is not None:
        with under("fast_copy"):
            copies = {name: FastCopy(name, denoiser, fast_copy) for name, denoiser in denoisers_of(pipeline).items()}
    with under("cache"):
        return holding_runner(pipeline, cache, copies)


def holding_runner(
    pipeline: DiffusionPipeline, cache: CacheSettings | None, copies: Mapping[str, FastCopy]
) -> CheapRunner | None:
    """The same with copies that are there.

    Args:
        pipeline: as loaded, with what is trained.
        cache: one of ours; None holds nothing.
        copies: by denoiser; none, where denoisers run themselves.

    Raises:
        SettingsError: the model cannot have it.
    """
    if cache is None:
        return CheapRunner({}, lambda num_steps: frozenset(range(num_steps)), 0, copies=copies) if copies else None
    held = {name: held_modules(denoiser, cache) for name, denoiser in denoisers_of(pipeline).items()}
    gates, tolerance = dict[str, str](), cache.tolerance
    if cache.name == "cg-taylor":
        tolerance = GATE if tolerance is None else tolerance
        gates = {name: first_block(denoiser) for name, denoiser in denoisers_of(pipeline).items()}
    return CheapRunner(held, cache.computed, cache.degree, tolerance, copies, gates, cache.name == "guidance")


def copies_of(runner: StepRunner | None) -> list[torch.nn.Module]:
    """The copies of denoisers that a runner runs."""
    copies = runner.copies.values() if isinstance(runner, CheapRunner) else ()
    return [module for copy in copies for module in copy.modules]
