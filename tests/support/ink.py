"""Rewards of the user's own, for tests: named by import path, as a user would."""

import time

import torch


class Ink:
    """How dark the images are, in [0, 1]; a gradient that is easy to follow.

    Args:
        seconds: pause at each call, for tests that need time to break something.
    """

    differentiable = True
    weights_hash = "no weights"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        time.sleep(self.seconds)
        return 1 - images.mean(dim=(1, 2, 3))


class Light:
    """How bright the images are, in [0, 1]: what learns from it alone loses all ink."""

    differentiable = True
    weights_hash = "no weights"

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3))


class Redness:
    """How much red there is more than green and blue."""

    differentiable = True
    weights_hash = "no weights"

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return (2 * images[:, 0] - images[:, 1] - images[:, 2]).square().mean(dim=(1, 2))


class Smoothness:
    """How little neighbouring pixels differ: an evaluator that training does not see."""

    differentiable = True
    weights_hash = "no weights"

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return -images.diff(dim=-1).abs().mean(dim=(1, 2, 3))


class Broken:
    """Raises at every call, as a bug in a reward does."""

    differentiable = True
    weights_hash = "no weights"

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        raise ValueError("this reward cannot score")


class MeanColours:
    """A feature network: mean and deviation of each colour, [B, 6]."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Of images [B, 3, H, W]."""
        return torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], dim=1)
