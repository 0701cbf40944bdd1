"""True sizes of a base model as a run samples and trains it, from its configuration files; no weights are read.

A small stand-in, which has the model's own inputs and outputs, is called as the run calls the model. What its
denoisers and its decoder are given goes to skeletons of the true ones, on the meta device; what these return, as zeros,
goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from sdo_ray.backprop.apart import watched
from sdo_ray.backprop.denoisers import denoiser_names
from sdo_ray.backprop.patches import replaced_call, replaced_method
from sdo_ray.backprop.tensors import floating, map_floating, map_leaves, rebuilt
from sdo_ray.models.checkpointing import checkpoint_blocks
from sdo_ray.models.policy import attach_working_copy
from sdo_ray.models.quantised import quantised_bytes
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.sampling import noise, steps_to_take
from sdo_ray.rollout.settings import SamplingSettings
from sdo_ray.sizing.meta import allowances
from sdo_ray.sizing.takes import Takes, takes

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

FEW = 2
"""Sampling steps of the call."""


@dataclass(frozen=True)
class Sizes:
    """Of one image, or video, or sound."""

    weights: Mapping[str, int]
    """Bytes of each network on a sampler, by component; what is trained among them."""
    trained: int
    """Parameters that are trained."""
    denoisers: int
    """Parameters of the denoisers, trained ones too."""
    step: Takes
    """A sampling step, with all its denoiser calls."""
    decoder: Takes
    apart: bool = False
    """Whether it makes frames of a video, or chunks or runs of them, by themselves."""


def sizes_of(
    stand_in: DiffusionPipeline,
    skeletons: Mapping[str, torch.nn.Module],
    model: ModelSettings,
    sampling: SamplingSettings,
    *,
    blocks: bool,
) -> Sizes:
    """Find them.

    Args:
        stand_in: a pipeline that takes and gives what the model does, and decodes as the run does; on the CPU.
        skeletons: the model's networks by component, frozen, of the types that samplers hold them in, on the meta
            device. What is trained is attached to them.
        model: what is trained.
        sampling: the call.
        blocks: whether blocks are checkpointed.
    """
    saved = {name: quantised_bytes(skeletons[name], to) for name, to in model.quantize.items()}
    trained = attach_working_copy(skeletons, model)
    if blocks:
        checkpoint_blocks(skeletons.values())
    learned = [p for part in trained.values() for p in part.parameters() if p.requires_grad]
    denoisers = denoiser_names(skeletons)
    step, decoder, apart = Takes(), Takes(), list[Callable[[], bool]]()

    def on_step(found: Takes) -> None:
        nonlocal step
        step = step.and_then(found)

    def on_decoding(found: Takes) -> None:
        nonlocal decoder
        decoder = decoder.and_then(found)

    few = sampling.model_copy(update={"num_inference_steps": steps_to_take(stand_in, sampling, FEW)})
    with ExitStack() as stack:
        for name, part in stand_in.components.items():
            if name not in skeletons or not isinstance(part, torch.nn.Module):
                continue
            true = skeletons[name]
            if name in denoisers:
                stack.enter_context(replaced_call(part, partial(_measured, true, None, on_step, {})))
            elif callable(getattr(part, "decode", None)):
                if getattr(part, "use_framewise_decoding", False):
                    vars(true)["use_framewise_decoding"] = True
                measured = partial(_measured, true, "decode", on_decoding, {})
                stack.enter_context(replaced_method(part, "decode", measured))
                apart.append(stack.enter_context(watched(part, true)))
        with torch.no_grad():
            stand_in(**few.pipeline_call(["a"]), generator=noise(0, [0]))
    whole = {name: sum(x.numel() * x.element_size() for x in _tensors(part)) for name, part in skeletons.items()}
    return Sizes(
        {name: size - saved.get(name, 0) for name, size in whole.items()},
        sum(p.numel() for p in learned),
        sum(p.numel() for name in denoisers for p in skeletons[name].parameters()),
        _of_one_step(step),
        decoder,
        any(is_apart() for is_apart in apart),
    )


def _measured(
    true: torch.nn.Module,
    method: str | None,
    found: Callable[[Takes], None],
    known: dict[Any, tuple[Takes, Any]],
    _: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """The call made of the skeleton; zeros of what that returns."""
    dtype = next(p.dtype for p in true.parameters() if p.is_floating_point())

    def meta(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        # Timesteps and positions stay what they are, as in `models.precision`.
        kind = dtype if leaf.is_floating_point() and leaf.dim() > (2 if method is None else 0) else leaf.dtype
        x = torch.empty(leaf.shape, dtype=kind, device="meta")
        return x.requires_grad_() if method is not None and leaf.is_floating_point() else x

    args, kwargs = map_leaves(meta, (args, kwargs))
    kwargs = {name: value for name, value in kwargs.items() if not isinstance(value, torch.Generator)}
    function = true if method is None else getattr(true, method)

    def call() -> Any:
        # Without a graph torch's counter trips over what requires a gradient all the same.
        given = (args, kwargs) if torch.is_grad_enabled() else map_floating(torch.Tensor.detach, (args, kwargs))
        return function(*given[0], **given[1])

    shapes = str(map_leaves(lambda leaf: leaf.shape if isinstance(leaf, torch.Tensor) else None, (args, kwargs)))
    if shapes not in known:
        with allowances(), torch.enable_grad():
            taken = takes(true, call)
        with allowances(), torch.no_grad():
            known[shapes] = taken, call()
    taken, output = known[shapes]
    found(taken)
    return rebuilt(output, (torch.zeros(x.shape, dtype=x.dtype) for x in floating(output)))


def _of_one_step(steps: Takes) -> Takes:
    """Of the call's steps, which are alike; what is alive beyond what is saved is that of any."""
    saved = steps.saved / FEW
    return Takes(steps.passing, saved, steps.held - steps.saved + saved, steps.forward / FEW, steps.learning / FEW)


def _tensors(part: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from part.parameters()
    yield from part.buffers()
