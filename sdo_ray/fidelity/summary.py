"""From measured gradients to numbers.

Notation
    F_b, F     gradient of `full` on batch b; its mean over the B batches
    G_bd       gradient of a plan on batch b with draw d of its steps
    G_b, G     its mean over the D draws; over batches too
    c          scale that brings the plan nearest to full: argmin over c >= 0 of |c G - F|; optimisers such as Adam
               do not care about scale
    V_draw     variance of G_bd around its expectation for batch b, all components added up
    V_batch    variance of that expectation over batches
    n          updates of the plan in the time of one update with full

    cosine        cos(G, F)
    norm ratio    |G| / |F|
    bias          |c G - F| / |F|, which is sin of the angle between them
    variance      c^2 V_draw / |F|^2: with bias^2, the mean squared error of one draw as a share of |F|^2
    for the price E[G] . E[F] / ( |E[F]| sqrt( |E[G]|^2 + (V_batch + V_draw) / n ) )

The last is the cosine that the mean of n updates, each on its own batch, has with the gradient of full over all
prompts: what one gets for the time that full takes for one batch, whose own value is that of n = 1. Its expectations
are unbiased estimates from the batches at hand: of |E[G]|^2, |G|^2 less the variance of G. Where noise leaves nothing
of that, more batches are needed, and it is None.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from sdo_ray.fidelity.gradients import MeasuredGradient


@dataclass(frozen=True)
class PlanFidelity:
    """One plan beside `full`."""

    plan: str
    """Its name with options."""
    cosine: float
    norm_ratio: float
    draw_cosine: float
    """Mean over batches and draws of cos(G_bd, F_b)."""
    draw_cosine_spread: float
    """Their standard deviation."""
    bias: float
    variance: float
    for_the_price: float | None
    seconds: float
    """Of one update without the rewards; mean."""
    time_ratio: float
    """The same over that of `full`."""
    saved: float
    """Bytes that autograd saves; mean."""
    saved_ratio: float
    """The same over that of `full`."""
    reward: float
    """Mean reward of what the plan lets the reward see."""


@dataclass(frozen=True)
class StepFidelity:
    """The direct term of one step beside `full`, and beside the sum of all direct terms."""

    step: int
    cosine: float
    """With F, means over batches of both."""
    cosine_spread: float
    """Standard deviation over batches of the cosine with F_b."""
    norm_ratio: float
    """To |F|."""
    direct_cosine: float
    """With the sum over all steps."""
    direct_norm_ratio: float
    """To the norm of that sum."""


@dataclass(frozen=True)
class Fidelity:
    """All numbers of one comparison."""

    plans: list[PlanFidelity]
    """In the order of the settings, `full` first."""
    steps: list[StepFidelity]
    """In order of time; empty if not asked for."""
    direct_cosine: float | None
    """Of the sum of all direct terms with F; None without steps."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Fidelity:
        """The inverse of `to_dict`."""
        return cls(
            [PlanFidelity(**plan) for plan in data["plans"]],
            [StepFidelity(**step) for step in data["steps"]],
            data["direct_cosine"],
        )

    def metrics(self) -> dict[str, float]:
        """Numbers of the plans by name, for a tracker."""
        return {
            f"fidelity/{plan.plan}/{name}": value
            for plan in self.plans
            for name, value in asdict(plan).items()
            if isinstance(value, float)
        }


class PlanTally:
    """Gathers a plan's gradients batch by batch; keeps one vector a batch.

    Args:
        plan: its name.
    """

    def __init__(self, plan: str) -> None:
        self.plan = plan
        self.batch_means: list[torch.Tensor] = []
        """G_b."""
        self._cosines: list[float] = []
        self._draw_variances: list[float] = []
        self._all: list[MeasuredGradient] = []

    def add(self, draws: Sequence[MeasuredGradient], F_b: torch.Tensor) -> None:
        """Take a batch's draws.

        Args:
            draws: two or more, or one of a plan that draws nothing.
            F_b: gradient of `full` on the same batch.
        """
        G_bd = torch.stack([draw.gradient for draw in draws]).double()
        self._cosines += [cosine(g, F_b) for g in G_bd]
        self._draw_variances.append(G_bd.var(dim=0).sum().item() if len(draws) > 1 else 0.0)
        self.batch_means.append(G_bd.mean(dim=0))
        # The vectors would fill the memory; the numbers beside them are kept.
        self._all += [MeasuredGradient(torch.empty(0), d.seconds, d.saved, d.reward) for d in draws]
        self._num_draws = len(draws)

    def summary(self, full: PlanTally) -> PlanFidelity:
        """The plan's numbers, once all batches are in."""
        G_b, F_b = torch.stack(self.batch_means), torch.stack(full.batch_means)
        G, F = G_b.mean(dim=0), F_b.mean(dim=0)
        norm_F, norm_G = F.norm().item(), G.norm().item()
        c = max(0.0, (G @ F).item()) / norm_G**2 if norm_G else 0.0
        V_draw = statistics.mean(self._draw_variances)
        seconds, full_seconds = self._mean("seconds"), full._mean("seconds")
        saved, full_saved = self._mean("saved"), full._mean("saved")
        return PlanFidelity(
            plan=self.plan,
            cosine=cosine(G, F),
            norm_ratio=_over(norm_G, norm_F),
            draw_cosine=statistics.mean(self._cosines),
            draw_cosine_spread=statistics.pstdev(self._cosines),
            bias=_over((c * G - F).norm().item(), norm_F),
            variance=_over(c**2 * V_draw, norm_F**2),
            for_the_price=_for_the_price(G_b, F_b, V_draw, self._num_draws, _over(full_seconds, seconds)),
            seconds=seconds,
            time_ratio=_over(seconds, full_seconds),
            saved=saved,
            saved_ratio=_over(saved, full_saved),
            reward=self._mean("reward"),
        )

    def _mean(self, name: str) -> float:
        return float(statistics.mean(getattr(draw, name) for draw in self._all))


def _for_the_price(G_b: torch.Tensor, F_b: torch.Tensor, V_draw: float, num_draws: int, n: float) -> float | None:
    B = len(G_b)
    G, F = G_b.mean(dim=0), F_b.mean(dim=0)
    spread_G, spread_F = (G_b - G).square().sum().item() / (B - 1), (F_b - F).square().sum().item() / (B - 1)
    together = ((G_b - G) * (F_b - F)).sum().item() / (B - 1)
    V_batch = max(0.0, spread_G - V_draw / num_draws)
    EG2, EF2 = (G @ G).item() - spread_G / B, (F @ F).item() - spread_F / B
    if EG2 <= 0 or EF2 <= 0:
        return None
    return ((G @ F).item() - together / B) / math.sqrt(EF2 * (EG2 + (V_batch + V_draw) / n))


def step_fidelity(steps: Sequence[Sequence[torch.Tensor]], full: PlanTally) -> tuple[list[StepFidelity], float]:
    """Every single step's numbers, and the cosine of the sum of all direct terms with F.

    Args:
        steps: batch -> step -> G_k of that batch.
        full: the tally of `full`, with the same batches in the same order.
    """
    G_bk = torch.stack([torch.stack(list(batch)) for batch in steps]).double()
    F_b = torch.stack(full.batch_means)
    G_k, F = G_bk.mean(dim=0), F_b.mean(dim=0)
    direct = G_k.sum(dim=0)
    numbers = []
    for k in range(len(G_k)):
        by_batch = [cosine(G, F_of_batch) for G, F_of_batch in zip(G_bk[:, k], F_b, strict=True)]
        numbers.append(
            StepFidelity(
                step=k,
                cosine=cosine(G_k[k], F),
                cosine_spread=statistics.pstdev(by_batch),
                norm_ratio=_over(G_k[k].norm().item(), F.norm().item()),
                direct_cosine=cosine(G_k[k], direct),
                direct_norm_ratio=_over(G_k[k].norm().item(), direct.norm().item()),
            )
        )
    return numbers, cosine(direct, F)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Cosine of two vectors; 0 if one is zero."""
    a, b = a.double(), b.double()
    return _over((a @ b).item(), a.norm().item() * b.norm().item())


def _over(a: float, b: float) -> float:
    return a / b if b else 0.0
