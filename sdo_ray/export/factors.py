"""The layers of an adapter's file in the format of diffusers, with factors, true strength and, of a DoRA, lengths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch

from sdo_ray.settings import Problem, SettingsError

METADATA = "lora_adapter_metadata"
"""What diffusers calls the entry of a file's metadata that holds PEFT's settings, by component."""
MAGNITUDE = ".lora_magnitude_vector"
"""What the names of a DoRA's lengths end with."""


@dataclass(frozen=True, eq=False)
class Factors:
    """The low-rank update of one layer: alpha / rank * up down, down and up as matrices or kernels of convolutions."""

    down: torch.Tensor
    """[r, in, ...]."""
    up: torch.Tensor
    """[out, r, ...]."""
    alpha: float
    """As of a plain LoRA: that of a rank-stabilised one (arXiv 2312.03732) is sqrt(r) times as large as it was set."""
    magnitude: torch.Tensor | None = None
    """Of a DoRA (arXiv 2402.09353) the length, [out], that each row of W + alpha / rank * up down is brought to."""

    @property
    def rank(self) -> int:
        """r."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """Alpha / rank."""
        return self.alpha / self.rank

    @property
    def update(self) -> torch.Tensor:
        """Alpha / rank * up down, [out, in * ...]: added to a weight, whose rows a DoRA brings to length."""
        return self.scale * self.up.flatten(1) @ self.down.flatten(1)


Adapter = Mapping[str, Mapping[str, Factors]]
"""Component -> layer, such as `unet` -> `mid_block.attentions.0.proj_in` -> factors."""


def read_adapter(file: Path) -> dict[str, dict[str, Factors]]:
    """Read an adapter that diffusers or this package wrote.

    Args:
        file: `.safetensors`, tensors named `COMPONENT.LAYER.lora_A.weight` and `.lora_B.weight`. Where its metadata
            does not give alpha, alpha is the rank, as diffusers has it. A DoRA's have `.lora_magnitude_vector` too.

    Raises:
        SettingsError: its tensors have other names.
    """
    with safetensors.safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        given = json.loads((opened.metadata() or {}).get(METADATA, "{}"))
    found: dict[str, dict[str, Factors]] = {}
    for name in tensors:
        layer, part, _ = name.rpartition(".lora_A.weight")
        if part:
            component, _, own = layer.partition(".")
            down, up = tensors[name], tensors.get(f"{layer}.lora_B.weight")
            if up is None:
                raise SettingsError(Problem("adapter", f"{file.name} has no second factor of {layer!r}"))
            length = tensors.get(layer + MAGNITUDE)
            found.setdefault(component, {})[own] = Factors(
                down, up, _alpha(given, component, own, down.shape[0]), None if length is None else length.flatten()
            )
    parts = (".lora_A.weight", ".lora_B.weight", MAGNITUDE)
    if other := sorted(name for name in tensors if not name.endswith(parts)):
        raise SettingsError(
            Problem("adapter", f"{file.name} has tensors of other names, such as {other[0]!r}", "a LoRA of diffusers")
        )
    return found


def _alpha(given: Mapping[str, Any], component: str, layer: str, rank: int) -> float:
    """Alpha of a layer, by PEFT's settings under `COMPONENT.NAME`."""
    from peft.utils.other import get_pattern_key

    alpha = given.get(f"{component}.lora_alpha", rank)
    pattern = given.get(f"{component}.alpha_pattern") or {}
    alpha = pattern.get(get_pattern_key(list(pattern), layer), alpha)
    return float(alpha) * (rank**0.5 if given.get(f"{component}.use_rslora") else 1.0)
