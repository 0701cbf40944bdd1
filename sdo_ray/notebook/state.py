"""An aligner's state as one safetensors file: weights, the optimizer's moments, and the number of the next update."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from sdo_ray.settings import Problem, SettingsError

NEXT = "next_update"


def save_state(
    file: Path, weights: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, next_update: int
) -> None:
    """Write it; there whole or not at all.

    Args:
        file: where to.
        weights: by name.
        optimizer: over them.
        next_update: number of the next update.
    """
    tensors = {f"weights.{name}": tensor.detach() for name, tensor in weights.items()}
    for name, tensor in weights.items():
        for moment, value in optimizer.state.get(tensor, {}).items():
            tensors[f"{moment}.{name}"] = torch.as_tensor(value)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    part.write_bytes(safetensors.torch.save(tensors, {NEXT: str(next_update)}))
    part.replace(file)


@torch.no_grad()
def load_state(file: Path, weights: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> int:
    """Read it into `weights` and `optimizer`; returns the number of the next update.

    Raises:
        SettingsError: there is none, or it is of other weights.
    """
    try:
        with safetensors.safe_open(file, "pt") as opened:
            given = (opened.metadata() or {}).get(NEXT)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise SettingsError(Problem("checkpoint", f"{str(file)!r} cannot be read: {error}")) from None
    saved = {name.removeprefix("weights."): tensor for name, tensor in tensors.items() if name.startswith("weights.")}
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    if given is None or {name: tensor.shape for name, tensor in saved.items()} != shapes:
        got = f"{str(file)!r} is no checkpoint of this LoRA"
        raise SettingsError(Problem("checkpoint", got, fix="use the settings that it was made with"))
    for name, tensor in weights.items():
        tensor.copy_(saved[name])
        # What is a whole number counts steps, and is no tensor.
        kept = {
            key.partition(".")[0]: value if value.dim() or value.is_floating_point() else int(value)
            for key, value in tensors.items()
            if key.partition(".")[2] == name and key != f"weights.{name}"
        }
        if kept:
            optimizer.state[tensor] = kept
    return int(given)
