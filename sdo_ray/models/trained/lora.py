"""A LoRA adapter (Hu et al. 2021, arXiv 2106.09685): a low-rank update of some layers, W + alpha / rank B A."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sdo_ray.models.adapter_file import has_adapter_file, save_adapter
from sdo_ray.models.denoisers import (
    TEXT_ENCODERS,
    denoiser_classes,
    denoiser_skeletons,
    denoisers_among,
    find_denoisers,
    find_text_encoders,
    load_denoisers,
    text_encoder_skeletons,
    text_encoders_among,
)
from sdo_ray.models.load import load_pipeline, pipeline_class
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.models.trained import pissa
from sdo_ray.models.trained.layers import matching_layers
from sdo_ray.models.trained.lora_layers import ADAPTER, LOADED, adapted_layers, add_lora, add_to_text_encoders
from sdo_ray.models.trained.lora_settings import LoraSettings, check_patterns

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

CLIP = "CLIPTextModel"
"""How the names of the classes of text encoders start whose adapters diffusers reads."""

MAGNITUDE = ".lora_magnitude_vector."
"""In the names of the lengths of rows that a DoRA trains."""


def attach(components: Mapping[str, object], settings: LoraSettings) -> dict[str, torch.nn.Module]:
    """Add a trainable float32 LoRA to every denoiser, and to the text encoders that have layers of the names given.

    The images stay as they were, for B starts at zero, or with `pissa` what it starts with is taken from the base.
    Otherwise, see `Kind`.
    """
    denoisers = denoisers_among(components)
    for name, denoiser in denoisers.items():
        matching_layers(denoiser, settings.targets, f"the {name}", "lora.targets")
        add_lora(denoiser, settings, settings.targets)
    adapted = denoisers
    if settings.text_encoder_targets:
        text_encoders = text_encoders_among(components)
        add_to_text_encoders(text_encoders, settings)
        adapted = denoisers | text_encoders
    check_patterns(settings, adapted_layers(adapted))
    return adapted


def initial(
    base: str, dtype: str, settings: LoraSettings, seed: int, types: Mapping[str, str] | None = None
) -> dict[str, torch.Tensor]:
    """See `Kind`. From the shapes of the base model alone, unless the settings ask for what is in its weights."""
    if not settings.reads_weights:
        return started(_adapted_skeletons(base, settings), settings, seed)
    if settings.text_encoder_targets:
        components: Mapping[str, object] = load_pipeline(base, dtype, types=types).components
    else:
        components = load_denoisers(base, dtype, types)
    return started(attach(components, settings), settings, seed)


def started(modules: Mapping[str, torch.nn.Module], settings: LoraSettings, seed: int) -> dict[str, torch.Tensor]:
    """The weights that the adapters of `modules` start with: float32 on the CPU, named as in `trained_parameters`.

    Args:
        modules: what `attach` returned, on any device; on the meta device, unless the settings read weights.
        settings: the adapter's.
        seed: fixes the draws of A.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, parameter in trained_parameters(modules).items():
        if settings.init == "pissa" or MAGNITUDE in name:
            weights[name] = parameter.detach().to("cpu", torch.float32, copy=True)
            continue
        weights[name] = torch.zeros(parameter.shape)
        if ".lora_A." in name and settings.init == "gaussian":
            weights[name].normal_(0, 1 / len(parameter), generator=generator)
        elif ".lora_A." in name:
            bound = parameter[0].numel() ** -0.5
            weights[name].uniform_(-bound, bound, generator=generator)
    return weights


def merge(modules: Mapping[str, torch.nn.Module]) -> None:
    """Add the adapters to the weights of their layers, and take them off."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in modules.values():
        adapted = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, BaseTunerLayer)]
        for name, layer in adapted:
            layer.merge()
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, layer.get_base_layer())
        if adapted:  # not so with a text encoder of another architecture
            vars(module).pop("peft_config", None)  # not where it is one layer
            setattr(module, LOADED, False)


def adapter_writer(base: str, settings: LoraSettings) -> Callable[[Mapping[str, torch.Tensor], Path], Path] | None:
    """See `Kind`. For many pipelines diffusers reads none, of text encoders none but CLIP's, and of these no DoRA."""
    adapted = list(denoiser_classes(base))
    if settings.text_encoder_targets:
        if settings.dora:
            return None  # its reader gives their lengths another name, and leaves them out behind a warning
        modules = _adapted_skeletons(base, settings)
        if any(
            name in TEXT_ENCODERS and not type(module).__name__.startswith(CLIP) for name, module in modules.items()
        ):
            return None
        adapted = list(modules)
    return partial(save_lora, base, settings) if has_adapter_file(pipeline_class(base), adapted) else None


def beyond_denoisers(settings: LoraSettings) -> str | None:
    """See `Kind`."""
    return "text_encoder_targets" if settings.text_encoder_targets else None


def save_lora(base: str, settings: LoraSettings, weights: Mapping[str, torch.Tensor], directory: Path) -> Path:
    """Write weights as `pytorch_lora_weights.safetensors`, which `pipe.load_lora_weights(directory)` takes.

    Args:
        base: the base model's reference; only its configuration is read.
        settings: the adapter's.
        weights: named as in `trained_parameters`.
        directory: where to.

    Returns:
        The file's path.
    """
    if settings.init == "pissa":
        weights = pissa.from_the_base(weights, initial(base, "float32", settings, seed=0))
        settings = pissa.doubled(settings)
    return save_adapter(pipeline_class(base), _adapted_skeletons(base, settings), weights, directory)


@contextmanager
def adapter_off(pipeline: DiffusionPipeline) -> Iterator[None]:
    """Sample from the base model inside the block."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [
        layer
        for module in (find_denoisers(pipeline) | find_text_encoders(pipeline)).values()
        if ADAPTER in getattr(module, "peft_config", ())
        for layer in module.modules()
        if isinstance(layer, BaseTunerLayer)
    ]
    for layer in adapted:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in adapted:
            layer.enable_adapters(True)


def _adapted_skeletons(base: str, settings: LoraSettings) -> dict[str, torch.nn.Module]:
    """The parts of a base model that get a LoRA, with it, on the meta device; the errors are those of attaching."""
    text_encoders = text_encoder_skeletons(base) if settings.text_encoder_targets else {}
    found = attach(denoiser_skeletons(base) | text_encoders, settings)
    return {name: module for name, module in found.items() if hasattr(module, "peft_config")}
