"""A LoRA adapter (Hu et al. 2021, arXiv 2106.09685): a low-rank update of some layers, W + alpha / rank B A."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import Field

from sdo_ray.models.adapter_file import has_adapter_file, save_adapter
from sdo_ray.models.denoisers import (
    TEXT_ENCODERS,
    denoiser_classes,
    denoiser_skeletons,
    denoisers_among,
    find_denoisers,
    find_text_encoders,
    text_encoder_skeletons,
    text_encoders_among,
)
from sdo_ray.models.load import pipeline_class
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.models.trained.layers import has_layer, layer_endings, matching_layers
from sdo_ray.settings import Problem, Settings, SettingsError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ADAPTER = "aligned"
"""The adapter's name inside PEFT."""

CLIP = "CLIPTextModel"
"""How the names of the classes of text encoders start whose adapters diffusers reads."""

LOADED = "_hf_peft_config_loaded"
"""The attribute by which diffusers knows that a model has adapters."""


class LoraSettings(Settings):
    """A LoRA adapter (arXiv 2106.09685) on the denoiser."""

    rank: int = Field(8, ge=1, description="Rank of the two factors of each adapted layer.")
    alpha: float = Field(8.0, gt=0, description="Scale; the update of a layer is alpha / rank * B A.")
    targets: list[str] = Field(
        default=["to_q", "to_k", "to_v", "to_out.0"],
        min_length=1,
        description="Endings of the names of the denoiser's linear and convolution layers to adapt.",
    )
    text_encoder_targets: list[str] = Field(
        default=[],
        description="The same for the text encoders, which are adapted too if any are named, such as `q_proj`.",
    )


def attach(components: Mapping[str, object], settings: LoraSettings) -> dict[str, torch.nn.Module]:
    """Add a trainable float32 LoRA to every denoiser, and to the text encoders that have layers of the names given.

    The images stay as they were, for B starts at zero. Otherwise, see `Kind`.
    """
    denoisers = denoisers_among(components)
    for name, denoiser in denoisers.items():
        matching_layers(denoiser, settings.targets, f"the {name}", "lora.targets")
        _add_lora(denoiser, settings, settings.targets)
    if not settings.text_encoder_targets:
        return denoisers
    text_encoders = text_encoders_among(components)
    _attach_to_text(text_encoders, settings)
    return denoisers | text_encoders


def initial(base: str, dtype: str, settings: LoraSettings, seed: int) -> dict[str, torch.Tensor]:
    """See `Kind`. From the shapes of the base model alone: no weights are read.

    Factor A is drawn uniformly from +-1/sqrt(fan in), B is zero, as PEFT starts them.
    """
    return started(_adapted_skeletons(base, settings), seed)


def started(modules: Mapping[str, torch.nn.Module], seed: int) -> dict[str, torch.Tensor]:
    """The weights that the adapters of `modules` start with: float32 on the CPU, named as in `trained_parameters`.

    Args:
        modules: what `attach` returned, on any device; for their shapes alone.
        seed: fixes the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, parameter in trained_parameters(modules).items():
        weights[name] = torch.zeros(parameter.shape)
        if ".lora_A." in name:
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
    """See `Kind`. For many pipelines diffusers reads none, and none of text encoders but CLIP's."""
    adapted = list(denoiser_classes(base))
    if settings.text_encoder_targets:
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


def _attach_to_text(text_encoders: Mapping[str, torch.nn.Module], settings: LoraSettings) -> None:
    """Adapt those that have layers of these names; those of other architectures are left alone."""
    fitting = {
        name: targets
        for name, encoder in text_encoders.items()
        if (targets := [t for t in settings.text_encoder_targets if has_layer(encoder, t)])
    }
    if unmatched := set(settings.text_encoder_targets) - {t for targets in fitting.values() for t in targets}:
        endings = sorted({ending for encoder in text_encoders.values() for ending in layer_endings(encoder)})
        raise SettingsError(
            Problem(
                "lora.text_encoder_targets",
                f"no linear layer of a text encoder ends with {', '.join(sorted(unmatched))}",
                f"their layers end with {', '.join(endings) or 'nothing: there are none'}",
                "choose among them",
            )
        )
    for name, targets in fitting.items():
        _add_lora(text_encoders[name], settings, targets)


def _adapted_skeletons(base: str, settings: LoraSettings) -> dict[str, torch.nn.Module]:
    """The parts of a base model that get a LoRA, with it, on the meta device; the errors are those of attaching."""
    text_encoders = text_encoder_skeletons(base) if settings.text_encoder_targets else {}
    found = attach(denoiser_skeletons(base) | text_encoders, settings)
    return {name: module for name, module in found.items() if hasattr(module, "peft_config")}


def _add_lora(module: torch.nn.Module, settings: LoraSettings, targets: Sequence[str]) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=list(targets))
    # What `add_adapter` does where a class has it; not every denoiser's does.
    inject_adapter_in_model(config, module, ADAPTER)
    setattr(module, LOADED, True)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        if parameter.requires_grad:
            # Adam's small steps are lost in half precision.
            parameter.data = parameter.data.float()
