from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

from rewards.mps import Mps
from rewards.towers.cross import CrossModel

from .clip import TinyHpsv2
from .weights import filled
from .words import save_clip


class TinyMps(Mps):
    architecture: ClassVar[Mapping[str, Any]] = TinyHpsv2.architecture
    cross: ClassVar[Mapping[str, int]] = {"width": 8, "heads": 2, "head_width": 4, "layers": 2}


def save_mps(folder: Path) -> Path:
    """A tiny MPS, by the names of the repacked checkpoint."""
    save_clip(folder)
    parts = {"model": CLIPModel(CLIPConfig(**TinyMps.architecture)), "cross_model": CrossModel(**TinyMps.cross)}
    tensors = {
        f"mps.{name}.{key}": tensor for name, part in parts.items() for key, tensor in filled(part).state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors")
    return folder
