"""A reward that takes its time and no CPU."""

import time

import torch


class Sleeping:
    """How dark the images are, after a while.

    Args:
        seconds: that it sleeps at each call.
    """

    differentiable = True

    def __init__(self, *, seconds: float = 1.0) -> None:
        self.seconds = seconds

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Scores [B]."""
        time.sleep(self.seconds)
        return 1 - images.mean(dim=(1, 2, 3))
