"""The optimizers of the policy, a decay that pulls to where training began, and the step size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from sdo_ray.training.settings import OptimizerName, ScheduleSettings, TrainingSettings


def make_optimizer(name: OptimizerName, parameters: Sequence[torch.Tensor], lr: float) -> torch.optim.Optimizer:
    """An optimizer without a decay of its own.

    Args:
        name: `adamw` (Loshchilov and Hutter 2019, arXiv 1711.05101), torch's fused one; `adamw-8bit`, that of
            bitsandbytes, with moments in blocks of 8 bits (Dettmers et al. 2022, arXiv 2110.02861); `adafactor`,
            torch's (Shazeer and Stern 2018, arXiv 1804.04235); `lion` (Chen et al. 2023, arXiv 2302.06675), that of
            bitsandbytes; `muon`, torch's (Jordan et al. 2024), with steps of the
            size of AdamW's (Liu et al. 2025, arXiv 2502.16982), for matrices.
        parameters: to train.
        lr: step size.
    """
    match name:
        case "adamw-8bit":
            from bitsandbytes.optim import AdamW8bit

            optimizer: torch.optim.Optimizer = AdamW8bit(parameters, lr=lr, weight_decay=0.0)
            return optimizer
        case "lion":
            from bitsandbytes.optim import Lion

            signs: torch.optim.Optimizer = Lion(parameters, lr=lr, weight_decay=0.0)
            return signs
        case "adafactor":
            return torch.optim.Adafactor(parameters, lr=lr, weight_decay=0.0)
        case "muon":
            return torch.optim.Muon(parameters, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        case _:
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0, fused=True)


def pull_back(optimizer: torch.optim.Optimizer, parameters: Iterable[torch.Tensor], decay: float) -> None:
    """Have each step begin with a pull of these to their values now, p0:  p <- p - lr decay (p - p0).

    With p0 = 0 that is AdamW's own decoupled decay. With p0 the base model's weights nothing is forgotten for the decay
    alone, whatever kind of weights is trained.

    Args:
        optimizer: of any kind.
        parameters: what it steps.
        decay: its strength; 0 keeps no copies.
    """
    starts = {parameter: parameter.detach().clone() for parameter in parameters} if decay else {}

    @torch.no_grad()
    def pull(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in starts:
                    parameter.lerp_(starts[parameter], group["lr"] * decay)

    optimizer.register_step_pre_hook(pull)


def clip_whole(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Have `step` clip the gradient of all parameters together, and make no step where it is not finite.

    For engines without ZeRO, which would do it. `_global_grad_norm` and `overflow` are where DeepSpeed looks for the
    norm before clipping, and for whether there was no step.
    """
    unclipped, parameters = optimizer.step, [p for group in optimizer.param_groups for p in group["params"]]

    def step() -> None:
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_norm))
        optimizer._global_grad_norm, optimizer.overflow = norm, not math.isfinite(norm)  # type: ignore[attr-defined]
        if math.isfinite(norm):
            unclipped()

    optimizer.step = step  # type: ignore[method-assign, assignment]


def learning_rate(training: TrainingSettings, update: int) -> float:
    """The step size at an update: it rises along a line, then falls as `schedule.decay` says.

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
