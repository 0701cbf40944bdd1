"""The needs of an alignment run, as a text."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from sdo_ray.config.align import AlignSettings
from sdo_ray.dry_batch.calls import check_call, stand_in
from sdo_ray.models.load import ZOO, check_named, load_pipeline, resolve
from sdo_ray.models.policy import load_model
from sdo_ray.models.precision import component_types
from sdo_ray.models.settings import ModelSettings
from sdo_ray.models.skeletons import skeletons
from sdo_ray.models.small import is_large
from sdo_ray.rollout.kept_graph import check_frames, kept_and_images, ways_of_auto
from sdo_ray.rollout.preparation import set_decoding
from sdo_ray.rollout.settings import KeptGraph, SamplingSettings
from sdo_ray.settings import Problem, SettingsError, under
from sdo_ray.sizing.needs import Batches, image_operations, sampler_bytes
from sdo_ray.sizing.sizes import Sizes, sizes_of
from sdo_ray.training.fitting import Load, frozen_bytes

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

GIB = 2**30

NAMES: dict[KeptGraph, str] = {"retain": "retain", "steps": "auto, kept steps", "recompute": "recompute"}
"""What `sampling.kept_graph` is called: "steps" has no name there, as "auto" alone chooses it."""


def needs_of(settings: AlignSettings, memory: float | None = None, rate: float | None = None) -> Iterator[str]:
    """What the run needs, line by line.

    Args:
        settings: of the run.
        memory: GiB of a sampler's GPU; what does not fit is marked.
        rate: operations a second, in units of 10^12, that a sampler's GPU sustains; None leaves times out.

    Raises:
        SettingsError: the model cannot be read, or not called without values; see `set_decoding` and `check_frames`.
    """
    with _stand_in(settings.model) as pipeline:
        check_call(pipeline, settings.sampling, ["a"])
        set_decoding(pipeline, settings.sampling.decode)
        check_frames(pipeline, settings.sampling)
        sizes = _both(pipeline, settings.model, settings.sampling)
    samplers = settings.samplers
    blocks = settings.model.checkpoints_blocks("cuda" if samplers.num_gpus else "cpu")
    kept, images = kept_and_images(pipeline, settings.sampling, settings.plan, samplers.batch_size)
    one, steps = sizes[blocks], settings.sampling.num_inference_steps
    offloads = samplers.text_encoders == "offload"
    told = settings.sampling.kept_graph
    ways = ways_of_auto(settings.rewards.looks_at_some_frames, one.apart) if told == "auto" else (told,)
    yield "weights of a sampler: " + ", ".join(f"{name} {_gib(size)}" for name, size in one.weights.items())
    yield f"trained: {one.trained / 1e6:.1f} of {one.denoisers / 1e6:.1f} million parameters of the denoiser"
    yield ""
    as_set = f"batch of {images}"
    yield f"memory of a sampler, weights and activations, GiB, {kept} kept step{'s' * (kept > 1)}:"
    yield f"  {'sampling.kept_graph':22}{'model.checkpoint_blocks':26}{as_set:>14}{'batch of 1':>14}"
    for graph, checkpointed in product(NAMES, (False, True)):
        if graph == "steps" and told != "auto":
            continue
        how = Batches(images, kept, steps, samplers.in_flight, graph, offloads)
        cells = [_cell(sizes[checkpointed], each, memory) for each in (how, replace(how, images=1))]
        mark = "  <- these settings" if checkpointed == blocks and graph in ways else ""
        yield f"  {NAMES[graph]:22}{str(checkpointed).lower():26}{cells[0]:>14}{cells[1]:>14}{mark}"
    training = settings.training
    frozen = frozen_bytes(settings.model, one.trained) if training.backward == "trainer" else 0
    load = Load.of(one.trained, frozen, training, settings.trainers)
    host = f", and {_gib(load.host)} of its host" if load.host else ""
    yield f"memory of a trainer, weights, gradients and optimizer: {_gib(load.device)} GiB{host}"
    yield ""
    how = Batches(images, kept, steps, samplers.in_flight, ways[0], offloads)
    plain, learning = image_operations(one, how)
    count = training.batch_size * settings.samples_per_prompt
    said = f"an update: {count * learning / 1e15:.3g} x 10^15 operations, {learning / plain:.2f} of plain sampling"
    if rate is not None:
        seconds = count * learning / (rate * 1e12 * samplers.count)
        said += f"; {seconds:.3g} s by {samplers.count} samplers at {rate:g} x 10^12 a second"
    yield said
    yield "not counted: rewards, text encoders at work, what a memory allocator wastes, waiting"


def sizes_of_model(model: ModelSettings, sampling: SamplingSettings) -> dict[bool, Sizes]:
    """A model's sizes, without block checkpointing and with it.

    Raises:
        SettingsError: as `needs_of`.
    """
    with _stand_in(model) as pipeline:
        return _both(pipeline, model, sampling)


@contextmanager
def _stand_in(model: ModelSettings) -> Iterator[DiffusionPipeline]:
    """Of the model's own types, so that its denoiser is given what the model's is."""
    with TemporaryDirectory(prefix="sdo-plan-") as directory:
        with under("model"):
            pipeline = _loaded(model, Path(directory))
        yield pipeline


def _loaded(model: ModelSettings, directory: Path) -> DiffusionPipeline:
    base = model.reference
    if not is_large(base) and (base.startswith(ZOO) or any(Path(resolve(base)).rglob("*.safetensors"))):
        return load_model(model.unrounded)
    try:
        return load_pipeline(stand_in(base, directory), model.dtype, types=model.dtypes)
    except ValueError as error:
        got = f"{base!r} has no small stand-in: {error}"
        raise SettingsError(Problem("base", got, fix="measure a short run instead")) from None


def _both(pipeline: DiffusionPipeline, model: ModelSettings, sampling: SamplingSettings) -> dict[bool, Sizes]:
    with under("model"):
        return {blocks: _sizes(pipeline, model, sampling, blocks) for blocks in (False, True)}


def _sizes(pipeline: DiffusionPipeline, model: ModelSettings, sampling: SamplingSettings, blocks: bool) -> Sizes:
    base = model.reference
    if base.startswith(ZOO):
        parts = {
            name: copy.deepcopy(part).to("meta")
            for name, part in pipeline.components.items()
            if isinstance(part, torch.nn.Module)
        }
    else:
        parts = skeletons(base)
    check_named("quantize", model.quantize, parts, base)
    for name, kind in component_types(parts, model.dtype, model.dtypes).items():
        torch.nn.Module.to(parts[name], kind)  # diffusers' own warns of what is no matter here
    try:
        return sizes_of(pipeline, parts, model, sampling, blocks=blocks)
    except Exception as error:  # whatever a network trips over that looks at values
        got = f"{base!r} cannot be called without values: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise SettingsError(Problem("base", got, fix="measure a short run instead")) from None


def _cell(sizes: Sizes, how: Batches, memory: float | None) -> str:
    needed = sum(sampler_bytes(sizes, how))
    return f"{_gib(needed)}{' too much' if memory is not None and needed > memory * GIB else ''}"


def _gib(size: float) -> str:
    return f"{size / GIB:.3g}"
