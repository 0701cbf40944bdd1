"""AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) whose decay pulls to where training began, and its step size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from sdo_ray.training.settings import ScheduleSettings, TrainingSettings


class AnchoredAdamW(torch.optim.AdamW):
    """AdamW with decoupled decay to the values p0 that `anchor` was called with:  p <- p - lr decay (p - p0).

    With p0 = 0 that is AdamW's own. With p0 the base model's weights nothing is forgotten for the decay alone, whatever
    kind of weights is trained.

    Args:
        parameters: to train.
        lr: step size.
        decay: its strength.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float, decay: float) -> None:
        super().__init__(parameters, lr=lr, weight_decay=0.0, fused=True)
        self._decay = decay
        self._anchors: dict[torch.Tensor, torch.Tensor] = {}

    def anchor(self, parameters: Iterable[torch.Tensor]) -> None:
        """Pull these, as they are stepped, to their values now."""
        if self._decay:
            self._anchors = {parameter: parameter.detach().clone() for parameter in parameters}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Decay, then step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter in self._anchors:
                    parameter.lerp_(self._anchors[parameter], group["lr"] * self._decay)
        return super().step(closure)


def learning_rate(training: TrainingSettings, update: int) -> float:
    """AdamW's step size at an update: it rises along a line, then falls as `schedule.decay` says.

    It depends on the number of the update alone, so that a resumed run goes on with it.

    Args:
        training: `learning_rate` and `schedule`.
        update: from 0.
    """
    return training.learning_rate * _share(training.schedule, update)


def _share(schedule: ScheduleSettings, update: int) -> float:
    if update < schedule.warmup:
        return (update + 1) / schedule.warmup
    if schedule.decay == "none":
        return 1.0
    done = min(1.0, (update - schedule.warmup) / (schedule.until - schedule.warmup))
    left = 1 - done if schedule.decay == "linear" else (1 + math.cos(math.pi * done)) / 2
    return schedule.floor + (1 - schedule.floor) * left
