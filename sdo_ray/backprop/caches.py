"""The caches of diffusers, which let a step reuse what blocks computed at earlier ones: without effect at kept steps.

A cache is hooks on modules of the denoiser (`enable_cache`, `apply_first_block_cache` and others), each in the place of
its module's `forward`. A kept step goes past them to what they replaced. It is exact then, whatever the cache, and the
cache does not see it: the steps before and after it are, to the cache, next to one another.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.faster_cache import FasterCacheBlockHook

_FILES = frozenset(
    f"diffusers.hooks.{name}"
    for name in (
        "faster_cache",
        "first_block_cache",
        "mag_cache",
        "pyramid_attention_broadcast",
        "sea_cache",
        "taylorseer_cache",
        "text_kv_cache",
    )
)
"""Where diffusers keeps its caches."""


def cache_hooks(denoiser: torch.nn.Module) -> list[tuple[torch.nn.Module, ModelHook]]:
    """The modules of `denoiser` that a cache of diffusers is on, with its hooks."""
    return [(part, hook) for part, hook in hooks_of(denoiser) if is_cache(hook)]


def hooks_of(denoiser: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, ModelHook]]:
    """The modules of `denoiser` that have hooks of diffusers, with each of these."""
    for part in denoiser.modules():
        registry = vars(part).get("_diffusers_hook")
        if isinstance(registry, HookRegistry):
            yield from ((part, hook) for hook in registry.hooks.values())


def is_cache(hook: ModelHook) -> bool:
    """Whether it is one of diffusers' own caches, or made from one."""
    return any(cls.__module__ in _FILES for cls in type(hook).__mro__)


@contextmanager
def bypassed(hooks: Sequence[tuple[torch.nn.Module, ModelHook]]) -> Iterator[None]:
    """Within the block the modules run as if they did not have these hooks."""
    found = [(hook.fn_ref, dict(vars(hook.fn_ref))) for _, hook in hooks]
    try:
        for reference, before in found:
            reference.pre_forward, reference.post_forward = _same_arguments, _same_output
            if before["original_forward"] is not None:
                reference.forward = before["original_forward"]
        yield
    finally:
        for reference, before in found:
            vars(reference).update(before)


@contextmanager
def filled(hooks: Sequence[tuple[torch.nn.Module, ModelHook]]) -> Iterator[None]:
    """Within the block a FasterCache that is empty computes.

    By itself it would read what it does not hold: it counts on a first step outside of its range of time steps, and
    that step may have been a kept one.
    """
    empty = [hook for _, hook in hooks if isinstance(hook, FasterCacheBlockHook) and hook.state.cache is None]
    ranges = [hook.timestep_skip_range for hook in empty]
    try:
        for hook in empty:
            hook.timestep_skip_range = (0, 0)
        yield
    finally:
        for hook, before in zip(empty, ranges, strict=True):
            hook.timestep_skip_range = before


def forget(hooks: Sequence[tuple[torch.nn.Module, ModelHook]]) -> None:
    """Empty the caches: what they hold is of a call that has ended, and diffusers keeps it where that raised."""
    for part, hook in hooks:
        if hook._is_stateful:
            hook.reset_state(part)


def _same_arguments(_module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def _same_output(_module: torch.nn.Module, output: Any) -> Any:
    return output
