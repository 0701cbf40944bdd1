"""CycleReward: how much of an image comes back from its description, and of a prompt from its image.

Bahng et al., 2506.02095.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from rewards.towers.blip import Blip, BlipTower
from rewards.towers.checkpoint import FromHub, describe, find_file, load_strict, precision, read_tensors

_SIZES = (1024, 128, 64, 16, 1)


class CycleReward(FromHub):
    """CycleReward, higher for images that show their prompt in full; no usual range has been published.

    Args:
        variant: of the weights: trained on both cycles, from image to text, or from text to image.
        source: hub id, local folder or file; None for the variant's own on the hub.
        tokenizer: hub id or local folder of BERT's tokenizer.
        revision: of the weights on the hub.
        dtype: what the network computes in; its head is in float32.
        device: where to compute.

    Raises:
        OSError: the weights are not there.
        ValueError: they have other keys or shapes.
    """

    differentiable = True
    licence = "MIT"
    network: type[Blip] = Blip

    def __init__(
        self,
        *,
        variant: Literal["Combo", "I2T", "T2I"] = "Combo",
        source: str | None = None,
        tokenizer: str = "bert-base-uncased",
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.device = device
        source = source or f"carolineec/CycleReward-{variant}"
        path = find_file(source, "model.safetensors", revision)
        tensors = read_tensors(path)
        head = {key: tensors.pop(key).float() for key in list(tensors) if key.startswith("mlp.layers.")}
        self._tower = BlipTower(tensors, tokenizer, 128, dtype, device, self.network)
        self._head = make_head(self._tower.model.text.config.hidden_size)
        load_strict(self._head, {key.removeprefix("mlp.layers."): head[key] for key in head}, "CycleReward's head")
        self._head.to(device, torch.float64 if precision(dtype) is torch.float64 else torch.float32)
        self.checkpoints = (describe(source, path),)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1], for B prompts."""
        return self._head(self._tower(images, prompts))[:, 0]


def make_head(width: int) -> nn.Sequential:
    """Linear layers with GELUs between them, at places 0, 2, 4, 6 and 8."""
    layers: list[nn.Module] = []
    for size in _SIZES:
        layers += [nn.Linear(width, size), nn.GELU()]
        width = size
    return nn.Sequential(*layers[:-1])
