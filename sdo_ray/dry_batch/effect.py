"""Whether what is trained does something, and the same where it is handed out: three draws of a tiny batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from sdo_ray.dry_batch.problems import OFF, problem
from sdo_ray.models.adapter_file import load_adapter
from sdo_ray.models.export import ADAPTER, MODEL, export_model, product
from sdo_ray.models.parameters import set_parameters
from sdo_ray.models.policy import load_model
from sdo_ray.models.settings import ModelSettings
from sdo_ray.settings import Problem, SettingsError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    Draw = Callable[[DiffusionPipeline], torch.Tensor]
    """A small sample of a pipeline."""

MOVED = 0.1
"""Noise on what is trained, as a share of its size."""
MOST = 0.25
"""How far the image of what is handed out may be from that of the policy, as a share of what the policy changes."""

Weights = Mapping[str, torch.Tensor]


def check_effect(
    pipeline: DiffusionPipeline,
    trained: Mapping[str, torch.nn.Module],
    model: ModelSettings,
    initial: Weights,
    draw: Draw,
) -> None:
    """Refuse a policy that changes no image, or another one where it is exported and loaded by plain diffusers.

    Args:
        pipeline: with what is trained attached.
        trained: its modules that have what is trained.
        model: what they are of.
        initial: policy version 0, as which they are left.
        draw: a small sample of a pipeline.

    Raises:
        SettingsError: of the model.
    """
    moved = _moved(initial)
    set_parameters(trained, initial)
    before = draw(pipeline)
    set_parameters(trained, moved)
    after = draw(pipeline)
    set_parameters(trained, initial)
    if not (before.isfinite().all() and after.isfinite().all()):  # a stand-in's random weights may make anything
        return
    effect = _apart(after, before)
    if not effect:
        got = "what is trained changes nothing in the image of a first tiny batch"
        raise SettingsError(Problem(f"model.{model.train}", got, fix=f"train other layers, {OFF}"))
    try:
        again = draw(_handed_out(model, moved))
    except Exception as error:
        got = "what a first tiny batch trained cannot be exported and loaded again"
        raise SettingsError(problem(f"model.{model.train}", got, error)) from None
    if (apart := _apart(again, after)) > MOST * effect:
        got = f"exported and loaded again, what is trained draws another image: {apart:.2g} from its own on average"
        got = f"{got}, where it changes {effect:.2g}"
        raise SettingsError(Problem(f"model.{model.train}", got, fix=f"change what is trained, {OFF}"))


def _handed_out(model: ModelSettings, weights: Weights) -> DiffusionPipeline:
    with TemporaryDirectory(prefix="sdo-dry-export-") as name:
        directory = Path(name)
        export_model(directory, model, weights)
        if product(model) == ADAPTER:
            pipeline = load_model(model)
            load_adapter(pipeline, str(directory / ADAPTER))
            return pipeline
        whole = {"base": str(directory / MODEL), "revision": None, "variant": None}
        return load_model(model.model_copy(update=whole))


def _moved(weights: Weights) -> dict[str, torch.Tensor]:
    """With noise, after which no factor of a LoRA is zero."""
    draws = torch.Generator().manual_seed(0)
    sizes = {name: float(w.square().mean().sqrt()) or 1.0 for name, w in weights.items()}
    return {name: w + MOVED * sizes[name] * torch.randn(w.shape, generator=draws) for name, w in weights.items()}


def _apart(x: torch.Tensor, other: torch.Tensor) -> float:
    return float((x - other).abs().mean())
