"""A reward on a network of transformers, of whichever version its actor has."""

import os
import signal
from pathlib import Path

import torch


class Versioned:
    """What a tiny CLIP makes of an image, times the first number of transformers' version.

    Args:
        dies_at: a file; whoever scores while it is there removes it and kills his own process, as a crash would.
    """

    differentiable = True

    def __init__(self, *, dies_at: Path) -> None:
        import transformers

        self.version = int(transformers.__version__.partition(".")[0])
        sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = transformers.CLIPVisionConfig(**sizes, image_size=8, patch_size=4)
        self._network = transformers.CLIPVisionModel(config).eval().requires_grad_(False)
        for weights in self._network.parameters():  # by no names, which versions may change
            weights.copy_(torch.arange(weights.numel()).sin().view_as(weights))
        self._dies_at = dies_at

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Scores, [B], of images [B, 3, 8, 8]."""
        if self._dies_at.exists():
            self._dies_at.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.version * self._network(pixel_values=images).pooler_output.square().mean(1)
