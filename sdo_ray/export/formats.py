"""The formats, and what each makes of an adapter.

diffusers  `pytorch_lora_weights.safetensors`, for `pipe.load_lora_weights`
kohya      `NAME.safetensors`, for ComfyUI, A1111, Forge and Kohya's scripts
merged     `model/`, a complete pipeline for `from_pretrained`, the adapter in its weights
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from sdo_ray.export.factors import read_adapter
from sdo_ray.export.kohya import is_decomposed, write_kohya
from sdo_ray.models.adapter_file import FILE, load_adapter
from sdo_ray.models.compose import fuse_adapter
from sdo_ray.models.denoisers import denoiser_classes, denoiser_skeletons, text_encoder_skeletons
from sdo_ray.models.export import MODEL
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Format = Literal["diffusers", "kohya", "merged"]


@dataclass(frozen=True)
class Aligned:
    """A base model and the adapter that was trained on it."""

    name: str
    """Of the run."""
    base: str
    """Reference of the base model."""
    adapter: Path
    """The file that diffusers reads."""
    dtype: str = "float32"
    """Type of the weights that it samples with."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Component -> type, where it is another."""
    device: str = "cpu"

    def load_base(self) -> DiffusionPipeline:
        """The base model's pipeline."""
        return load_pipeline(self.base, self.dtype, self.device, self.types)

    def load_adapted(self, file: Path) -> DiffusionPipeline:
        """The same with an adapter's file, as plain diffusers loads it."""
        pipeline = self.load_base()
        load_adapter(pipeline, str(file))
        return pipeline


def write_diffusers(model: Aligned, out: Path) -> Path:
    """Copy the file that diffusers reads; returns its place."""
    return Path(shutil.copyfile(model.adapter, out / FILE))


def write_for_others(model: Aligned, out: Path) -> Path:
    """Write the file that other programs read; returns its place.

    Raises:
        SettingsError: see `sdo_ray.export.kohya.kohya_tensors` and `sdo_ray.export.factors.read_adapter`.
    """
    adapter, file = read_adapter(model.adapter), out / f"{model.name}.safetensors"
    if any(factors.magnitude is not None for layers in adapter.values() for factors in layers.values()):
        parts = model.load_base().components
        modules = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    else:
        modules = denoiser_skeletons(model.base) | text_encoder_skeletons(model.base)
    write_kohya(file, adapter, modules, {"ss_output_name": model.name})
    return file


def write_merged(model: Aligned, out: Path) -> Path:
    """Write a complete pipeline; returns its directory."""
    pipeline = model.load_base()
    fuse_adapter(pipeline, str(model.adapter))
    with quiet_libraries():
        pipeline.save_pretrained(out / MODEL)
    return out / MODEL


WRITERS: Mapping[Format, Callable[[Aligned, Path], Path]] = {
    "diffusers": write_diffusers,
    "kohya": write_for_others,
    "merged": write_merged,
}
"""What writes each format into a directory, and returns the place."""


def load_written(model: Aligned, form: Format, place: Path) -> DiffusionPipeline | None:
    """What was written, as plain diffusers loads it; None of a file that is not for it."""
    if form == "merged":
        return load_pipeline(str(place), model.dtype, model.device, model.types)
    if form == "kohya" and (set(denoiser_classes(model.base).values()) & NOT_READ or is_decomposed(place)):
        return None
    return model.load_adapted(place)


NOT_READ = frozenset({"SD3Transformer2DModel"})
"""Denoisers of whose adapters diffusers reads its own format alone."""
