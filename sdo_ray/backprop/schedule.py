"""The schedule that a pipeline really samples with.

Many pass `sigmas` of their own to `set_timesteps`, or a `mu` that follows from the image's size. The scheduler by
itself knows neither: `set_timesteps(n)` gives another schedule, or refuses.
"""

import copy
import functools
from contextlib import ExitStack
from typing import Any

import torch

from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.backprop.leaving import Left, leaving
from sdo_ray.backprop.patches import replaced_call, subclassed


@torch.no_grad()
def called_scheduler(pipeline: Any, **pipeline_call: Any) -> Any:
    """The pipeline's scheduler as this call sets it, before its first step: for `sampler_plan` and `solver_weights`.

    Args:
        pipeline: a diffusers pipeline; it is left as found.
        pipeline_call: the call's keyword arguments. The call is left at the first denoiser call, so it costs what
            encoding its prompts costs. Prompts and noise do not matter; size and number of steps do.

    Returns:
        A copy of its own. `timesteps_of` says which steps the call takes: image-to-image skips the first ones where
        its `strength` is below 1, which diffusers' pipelines do in `get_timesteps`.

    Raises:
        TraceError: the call ended before it reached a denoiser.
    """
    scheduler = pipeline.scheduler
    cls = type(scheduler)
    newest = scheduler  # some pipelines go on with a copy
    taken: torch.Tensor | None = None  # the timesteps, of a call that skips some

    # The signature stays: pipelines read it to decide whether they may pass `sigmas` or `timesteps`.
    @functools.wraps(cls.set_timesteps)
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal newest
        newest = self
        return cls.set_timesteps(self, *args, **kwargs)

    def get_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal taken
        made = super(type(self), self).get_timesteps(*args, **kwargs)
        taken = made[0] if isinstance(made, tuple) and isinstance(made[0], torch.Tensor) else None
        return made

    def leave(_call: Any, _args: Any, _kwargs: Any) -> Any:
        found = copy.deepcopy(newest)
        if taken is not None and len(taken) and taken.equal(found.timesteps[-len(taken) :]):
            found.called_timesteps = taken.clone()
        raise Left(found)

    with ExitStack() as stack:
        if hasattr(pipeline, "get_timesteps"):
            stack.enter_context(subclassed(pipeline, get_timesteps=get_timesteps))
        stack.enter_context(subclassed(scheduler, set_timesteps=set_timesteps))
        for module in denoisers_of(pipeline).values():
            stack.enter_context(replaced_call(module, leave))
        found = leaving(pipeline, pipeline_call)
    found.__class__ = cls
    return found
