"""Weights rounded to few bits, activations as they are: a linear layer's arithmetic and gradient stay the model's.

By torchao (`int8`) and bitsandbytes (`nf4`). `int8-dynamic` rounds what a layer is given too, which has no gradient.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch

from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.settings import Problem, SettingsError

Rounding = Literal["int8", "int8-dynamic", "nf4"]
"""How weights are rounded: to 8 bits with a scale for each row, alone or with a scale for each row of what is given;
to the 4 bits of a normal distribution's quantiles (Dettmers et al. 2023, arXiv 2305.14314), with a scale for each 64
weights, itself of 8 bits."""

NEEDED: Mapping[Rounding, tuple[str, str]] = {
    "int8": ("torchao", "quantised"),
    "int8-dynamic": ("torchao", "quantised"),
    "nf4": ("bitsandbytes", "bitsandbytes"),
}
"""The package that rounds so, and the extra that brings it."""

BYTES: Mapping[str, float] = {"int8": 1.0, "nf4": 0.5 + 1 / 64}
"""Of a weight, with its part of the scales that grow with the weights."""


def check_installed(to: Rounding, setting: str) -> None:
    """Refuse a rounding whose package is not here.

    Args:
        to: how.
        setting: that asks for it.

    Raises:
        SettingsError: of the setting.
    """
    package, extra = NEEDED[to]
    if importlib.util.find_spec(package) is None:
        got = f"got {to!r}, which needs {package}, and that is not installed"
        raise SettingsError(
            Problem(setting, got, fix=f"install the extra: pip install 'sdo-ray[{extra}]'; or leave it out")
        )


def quantise(module: torch.nn.Module, to: Rounding, setting: str = "quantize") -> None:
    """Round the weights of the linear layers in a module, in place; see `rounded_layers`.

    Args:
        module: frozen; nf4's scales are made where it is.
        to: how.
        setting: that asks for it.

    Raises:
        SettingsError: see `check_installed`.
    """
    check_installed(to, setting)
    # They say at import which kernels a machine has not.
    with quiet_libraries(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if to == "nf4":
            _to_nf4(module)
        else:
            _to_integers(module, to)


def quantised_bytes(module: torch.nn.Module, to: Literal["int8", "nf4"]) -> int:
    """What `quantise` saves of a module's memory, in bytes.

    Args:
        module: unquantised, on any device.
        to: how.
    """
    weights = [layer.weight for _, layer in rounded_layers(module)]
    return round(sum(weight.numel() * (weight.element_size() - BYTES[to]) for weight in weights))


def rounded_layers(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Linear]]:
    """The layers that `quantise` rounds, by name: plain linear ones, but for those that their model keeps exact.

    A model says which by `_keep_in_fp32_modules`, and may ask such a layer's weight for the type to compute in, which a
    weight of 4 bits does not have: T5's `wo`, the time embedding of Wan.
    """
    exact = {part for model in module.modules() for part in getattr(model, "_keep_in_fp32_modules", None) or ()}
    for name, layer in module.named_modules():
        if type(layer) is torch.nn.Linear and not any(f".{part}." in f".{name}." for part in exact):
            yield name, layer


def is_quantised(weight: torch.Tensor) -> bool:
    """Whether it is the weight of a layer that `quantise` rounded."""
    return type(weight.data).__module__.startswith("torchao") or type(weight).__name__ == "Params4bit"


def _to_integers(module: torch.nn.Module, to: Rounding) -> None:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

    names = {name for name, _ in rounded_layers(module)}
    config = Int8WeightOnlyConfig() if to == "int8" else Int8DynamicActivationInt8WeightConfig()
    quantize_(module, config, filter_fn=lambda _, name: name in names)


def _to_nf4(module: torch.nn.Module) -> None:
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name, layer in list(rounded_layers(module)):
        weight = layer.weight.detach()
        rounded = Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=weight.dtype,
            quant_type="nf4",
            device="meta",
        )
        packed: Any = Params4bit(weight, requires_grad=False, quant_type="nf4", module=rounded)
        rounded.weight = packed.to(weight.device)
        rounded.bias = layer.bias
        # The form that some CPUs sample with is of bfloat16, and has no gradient.
        rounded.support_avx512bf16_for_cpu = False
        module.set_submodule(name, rounded.train(layer.training))
    vars(module)["is_loaded_in_4bit"] = True  # by which PEFT knows
