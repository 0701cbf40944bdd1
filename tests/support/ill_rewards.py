"""Rewards that go wrong in ways of their own. What a prompt says happens to the batch that it is in."""

import os
import time
from pathlib import Path

import torch


class Ill:
    """Scores the mean, unless a prompt says otherwise.

    Args:
        at_start: what to do then: "die", "hang", "raise", "memory", or nothing. With "once " before it a prompt's batch
            meets it no more than once, for which there has to be a `folder`.
        folder: where it leaves a file for each process that it starts in.
    """

    differentiable = True

    def __init__(self, at_start: str = "", folder: str = "") -> None:
        self._folder = folder
        if folder:
            Path(folder, str(os.getpid())).touch()
        self._do(at_start)

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        for prompt in prompts:
            self._do(prompt)
        return images.mean(dim=(1, 2, 3)) * torch.tensor([torch.nan if what == "nan" else 1.0 for what in prompts])

    def _do(self, what: str) -> None:
        if what.startswith("once "):
            what = what.removeprefix("once ")
            try:
                Path(self._folder, what).touch(exist_ok=False)
            except FileExistsError:
                return
        if what == "die":
            os._exit(139)
        if what == "hang":
            time.sleep(600)
        if what == "raise":
            raise OSError("no answer from the server")
        if what == "memory":
            torch.empty(2**55)
        if what.startswith("sleep"):
            time.sleep(float(what.removeprefix("sleep")))


class Lister:
    """Returns a list."""

    differentiable = True

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> list[float]:
        return [0.0 for _ in images]
