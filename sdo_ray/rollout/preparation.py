"""What the settings switch on in a pipeline once it is loaded: how it decodes, computes, and runs its steps."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from sdo_ray.backprop import StepRunner
from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.cheap_steps.choose import choose_runner, copies_of
from sdo_ray.models.load import pipeline_class
from sdo_ray.models.skeletons import is_network, skeletons
from sdo_ray.rollout.settings import Decode, SamplerSettings, SamplingSettings
from sdo_ray.rollout.texts import offload_text_encoders
from sdo_ray.settings import Problem, SettingsError, under

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SWITCHES: dict[Decode, str] = {
    "slices": "use_slicing",
    "tiles": "use_tiling",
    "frames": "use_framewise_decoding",
}
"""Way to decode -> the attribute of those of diffusers' autoencoders that can. All have methods to switch slices and
tiles on, which raise without it."""


def prepare(pipeline: DiffusionPipeline, sampling: SamplingSettings, samplers: SamplerSettings) -> StepRunner | None:
    """Switch on what both say.

    Args:
        pipeline: as loaded, with what is trained, on the device where it samples.
        sampling: see its `decode`, `cache` and `fast_copy`.
        samplers: see its `tf32`, `channels_last`, `text_encoders` and `compile`.

    Returns:
        What runs its steps without a graph; None: its own calls.

    Raises:
        SettingsError: see `set_decoding`, `offload_text_encoders` and `runner_of`.
    """
    set_decoding(pipeline, sampling.decode)
    if pipeline.device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = samplers.tf32
    if samplers.channels_last:
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if samplers.text_encoders == "offload":
        offload_text_encoders(pipeline)
    runner = runner_of(pipeline, sampling)
    if samplers.compile:
        for denoiser in (*denoisers_of(pipeline).values(), *copies_of(runner)):
            if getattr(denoiser, "_repeated_blocks", None):
                denoiser.compile_repeated_blocks()  # type: ignore[operator]
            else:
                denoiser.compile()
    return runner


def runner_of(pipeline: DiffusionPipeline, sampling: SamplingSettings) -> StepRunner | None:
    """What runs the pipeline's steps without a graph, see `choose_runner`; to be called once.

    Raises:
        SettingsError: the model cannot have `sampling.cache` or `sampling.fast_copy`.
    """
    with under("sampling"):
        return choose_runner(pipeline, sampling.cache, sampling.fast_copy, sampling.num_inference_steps)


def set_decoding(pipeline: DiffusionPipeline, decode: Decode) -> None:
    """Switch on the way to decode in the pipeline's autoencoders.

    Raises:
        SettingsError: none of them has it, or none that has looks at it.
    """
    if decode == "whole":
        return
    switch = SWITCHES[decode]
    for part in _decoding(type(pipeline), pipeline.components, decode):
        if decode == "frames":
            setattr(part, switch, True)
        else:
            getattr(part, switch.replace("use", "enable"))()


def check_decoding(base: str, decode: Decode) -> None:
    """The same, of a base model's configuration files alone.

    Raises:
        SettingsError: see `set_decoding`; the base cannot be read.
    """
    if decode != "whole":
        parts = skeletons(base, lambda kind: is_network(kind) and callable(getattr(kind, "decode", None)))
        _decoding(pipeline_class(base), parts, decode)


def _decoding(pipeline: type[DiffusionPipeline], components: Mapping[str, object], decode: Decode) -> list[Any]:
    """The components that can decode so; some there are."""
    parts = [part for part in components.values() if hasattr(part, SWITCHES[decode])]
    if decode == "frames":
        parts = [part for part in components.values() if _reads(part) or _always_by_frames(type(part))]
    if not parts:
        got = f"got {decode!r}, which no autoencoder of a {pipeline.__name__} has"
        raise SettingsError(Problem("sampling.decode", got, fix="choose 'whole'"))
    return parts


def is_by_frames_as_it_is(pipeline: DiffusionPipeline) -> bool:
    """Whether its autoencoders decode by frames in any case.

    `decode: frames` is how they are decoded again then, see `sdo_ray.backprop.decoder`, and nothing else.
    """
    parts = list(pipeline.components.values())
    return any(_always_by_frames(type(part)) for part in parts) and not any(_reads(part) for part in parts)


def _always_by_frames(kind: type) -> bool:
    """Whether a class of autoencoders decodes by frames, switched or not, as causal ones that hand on a cache do.

    By its source text; code without any is not believed.
    """
    try:
        return _CACHED.search(inspect.getsource(getattr(kind, "_decode", str))) is not None
    except (OSError, TypeError):
        return False


_CACHED = re.compile(r"self\.decoder\([^)]*_cache=")


_READ = re.compile(rf"self\.{SWITCHES['frames']}\b(?!\s*=[^=])")


def _reads(part: object) -> bool:
    """Whether its class's code reads the switch that it has: some of diffusers' autoencoders only set it.

    By its source text; code without any is believed.
    """
    if not hasattr(part, SWITCHES["frames"]):
        return False
    try:
        return any(_READ.search(inspect.getsource(one)) for one in type(part).__mro__ if one is not object)
    except OSError:
        return True
