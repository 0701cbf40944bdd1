"""Weights rounded to few bits by torchao, activations as they are: a linear layer's arithmetic stays the model's."""

from __future__ import annotations

import importlib.util
from typing import Literal

import torch

from sdo_ray.settings import Problem, SettingsError

Quantize = Literal["int8", "int4"]


def quantise(module: torch.nn.Module, to: Quantize | None) -> None:
    """Round the weights of the linear layers in a module, in place.

    Args:
        module: frozen.
        to: bits of a weight; int8 has a scale for each row, int4 one for each 32 weights of a row, so that layers
            whose width is no multiple of 32 stay as they are. None: nothing is done.

    Raises:
        SettingsError: torchao is not installed.
    """
    if to is None:
        return
    if importlib.util.find_spec("torchao") is None:
        fix = "install the extra: pip install 'sdo-ray[quantised]'; or leave `quantize` out"
        raise SettingsError(Problem("quantize", f"got {to!r}, which needs torchao, and that is not installed", fix=fix))
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup, quantize_

    config = Int8WeightOnlyConfig() if to == "int8" else IntxWeightOnlyConfig(getattr(torch, to), PerGroup(GROUP))

    def is_linear(part: torch.nn.Module, _name: str) -> bool:
        return isinstance(part, torch.nn.Linear) and (to == "int8" or part.in_features % GROUP == 0)

    quantize_(module, config, filter_fn=is_linear)


GROUP = 32
"""Weights of a row that share a scale, in int4."""
