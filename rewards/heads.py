"""The small trained part of a learned reward: a file of tensors in `weights/`, made by a script in `training/`."""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

WEIGHTS = Path(__file__).parent / "weights"


def load_head(path: Path, device: str) -> dict[str, Tensor]:
    """The tensors of a head, as float32.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in WEIGHTS.glob("*.safetensors"))) or "none"
        raise FileNotFoundError(
            f"no weights at {path}; there are {there} in {WEIGHTS}, and rewards.fitting makes new ones"
        )
    with safe_open(path, framework="pt", device=device) as file:
        return {name: file.get_tensor(name).to(torch.float32) for name in file.keys()}  # noqa: SIM118, not a mapping
