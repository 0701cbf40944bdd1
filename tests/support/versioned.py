"""A reward whose scores depend on the version of a package that it imports."""

import os
import signal
from pathlib import Path

import torch


class Versioned:
    """Mean of the pixels, times the digits of inflection's version: 40 for 0.4.0.

    Args:
        dies_at: a file; whoever scores while it is there removes it and kills his own process, as a crash would.
    """

    differentiable = True

    def __init__(self, *, dies_at: Path) -> None:
        import inflection

        self._gain = float(inflection.__version__.replace(".", ""))
        self._dies_at = dies_at

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Scores, [B]."""
        if self._dies_at.exists():
            self._dies_at.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._gain * images.mean((1, 2, 3))
