"""How near an estimator's gradient is to the true one, of a reward that has a gradient and hides it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence

import torch

from benchmarks.black_box.runs import PLANS, Made, Run, Setting
from sdo_ray.rollout.settings import PlanSettings

AWAY = 0.02
"""Standard deviation of the adapter's second factors."""


def gradients(setting: Setting, names: Sequence[str], reward: str, prompts: Sequence[str], draws: int) -> None:
    """Cosine of one batch's gradient, and of the mean over all, with full backpropagation's mean over as many."""
    full = PlanSettings(name="full", options={"checkpoint": True})
    truth = _all(Run(setting, full, {reward: 1.0}, [reward], 0, AWAY), prompts, draws)
    reference = torch.stack([made.gradient for made in truth]).mean(0)
    for name in names:
        found = _all(Run(setting, PLANS[name], {reward: 1.0}, [reward], 1, AWAY), prompts, draws)
        vectors = torch.stack([made.gradient for made in found])
        mean = vectors.mean(0)
        noise = (vectors - mean).square().sum(1).mean() / mean.square().sum()
        line = {
            "plan": name,
            "cosine": statistics.fmean(_cosine(vector, reference) for vector in vectors),
            "cosine of the mean": _cosine(mean, reference),
            "variance / |mean|^2": noise.item(),
            "rows": statistics.fmean(made.rows for made in found),
            "CPU seconds": statistics.fmean(made.seconds for made in found),
        }
        print(json.dumps(line), flush=True)


def _all(run: Run, prompts: Sequence[str], draws: int) -> list[Made]:
    return [run.batch(i, prompts, i * len(prompts)) for i in range(draws)]


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a, b, dim=0).item()
