"""From measured gradients to numbers.

Notation
    F_b, F     gradient of `full` on batch b; its mean over the B batches
    G_bd       gradient of a plan on batch b with draw d of its steps
    m, V_draw  mean of the plan's gradient over batches and all draws there could be; variance of G_bd around it
    c          scale that brings the plan nearest to full: argmin over c >= 0 of |c m - F|; optimisers such as Adam
               do not care about scale
    n          updates of the plan in the time of one update with full, or for as many rows of denoiser calls

    cosine        cos(m, F)
    norm ratio    |m| / |F|
    bias          |c m - F| / |F|, which is sin of the angle between them
    variance      c^2 V_draw / |F|^2: with bias^2, the mean squared error of one draw as a share of |F|^2
    for the price the cosine that the mean of n updates, each on its own batch, has with the gradient of full over all
                  prompts: what one gets for the time that full takes for one batch, whose own value is that of n = 1
    for the calls the same for as many rows of denoiser calls, which no machine has a part in

m is not what was measured, which has the noise of the draws in it: see `sdo_ray.fidelity.estimates`, which says how it
is taken out, and how the intervals are made. Where noise leaves nothing, a number is None: more batches are needed.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from sdo_ray.fidelity.estimates import Estimate, Products, bias_of, cosine_of, for_the_price, jackknife, signed_square
from sdo_ray.fidelity.gradients import MeasuredGradient
from sdo_ray.fidelity.rewards import RewardPulls


@dataclass(frozen=True)
class PlanFidelity:
    """One plan beside `full`."""

    plan: str
    """Its name with options."""
    cosine: float | None
    norm_ratio: float | None
    draw_cosine: float
    """Mean over batches and draws of cos(G_bd, F_b)."""
    draw_cosine_spread: float
    """Their standard deviation."""
    bias: float | None
    variance: float | None
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
    cosine_low: float | None = None
    """Of a 95 % interval, as all that follow; None in results of earlier versions, and where noise leaves nothing."""
    cosine_high: float | None = None
    bias_low: float | None = None
    bias_high: float | None = None
    for_the_price_low: float | None = None
    for_the_price_high: float | None = None
    exact_cosine: float | None = None
    """With cheap steps: cosine with the same plan's gradient with exact steps, over the same draws; mean of batches."""
    exact_cosine_spread: float | None = None
    """Its standard deviation over batches."""
    exact_time_ratio: float | None = None
    """Seconds over those with exact steps."""
    rows: float | None = None
    """Of denoiser calls in one update, guidance included, backward passes as two; mean. None, as what follows, in
    results of earlier versions."""
    rows_ratio: float | None = None
    """The same over that of `full`."""
    for_the_calls: float | None = None
    for_the_calls_low: float | None = None
    for_the_calls_high: float | None = None


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
    rewards: RewardPulls | None = None
    """At the images of `full`; None in results of earlier versions."""

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
            RewardPulls(**data["rewards"]) if data.get("rewards") else None,
        )

    def metrics(self) -> dict[str, float]:
        """Numbers of the plans and of the rewards by name, for a tracker."""
        return ({} if self.rewards is None else self.rewards.metrics()) | {
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
        self._all += [replace(d, gradient=torch.empty(0)) for d in draws]
        self._num_draws = len(draws)

    @property
    def rewards(self) -> RewardPulls:
        """How they pull on the plan's images."""
        return RewardPulls.of([one.pulls for one in self._all], [one.cosines for one in self._all])

    def summary(self, full: PlanTally, exact: PlanTally | None = None) -> PlanFidelity:
        """The plan's numbers, once all batches are in.

        Args:
            full: that of `full`.
            exact: of the same plan with exact steps, for one with cheap steps.
        """
        G_b, F_b = torch.stack(self.batch_means), torch.stack(full.batch_means)
        products = Products.of(G_b, F_b, self._draw_variances, self._num_draws)
        seconds, full_seconds = self._mean("seconds"), full._mean("seconds")
        saved, full_saved = self._mean("saved"), full._mean("saved")
        square = jackknife(products, signed_square)
        if square.low is None:  # what one batch more or less makes or breaks is no number
            square = Estimate(None)
        cosine_, bias = square.map(cosine_of), square.map(bias_of)
        rows, full_rows = self._mean("rows"), full._mean("rows")
        price, calls = (
            jackknife(products, partial(for_the_price, n=_over(whole, mine)))
            for whole, mine in ((full_seconds, seconds), (full_rows, rows))
        )
        F2 = float(products.FF.mean())
        told = square.value is not None
        return PlanFidelity(
            plan=self.plan,
            cosine=cosine_.value,
            cosine_low=cosine_.low,
            cosine_high=cosine_.high,
            norm_ratio=_over(products.m2, F2) ** 0.5 if told else None,
            draw_cosine=statistics.mean(self._cosines),
            draw_cosine_spread=statistics.pstdev(self._cosines),
            bias=bias.value,
            bias_low=bias.low,
            bias_high=bias.high,
            variance=_over(products.scale**2 * statistics.mean(self._draw_variances), F2) if told else None,
            for_the_price=price.value,
            for_the_price_low=price.low,
            for_the_price_high=price.high,
            seconds=seconds,
            time_ratio=_over(seconds, full_seconds),
            saved=saved,
            saved_ratio=_over(saved, full_saved),
            reward=self._mean("reward"),
            rows=rows,
            rows_ratio=_over(rows, full_rows),
            for_the_calls=calls.value,
            for_the_calls_low=calls.low,
            for_the_calls_high=calls.high,
            **({} if exact is None else self._beside(exact)),
        )

    def _beside(self, exact: PlanTally) -> dict[str, float]:
        cosines = [cosine(mine, theirs) for mine, theirs in zip(self.batch_means, exact.batch_means, strict=True)]
        return {
            "exact_cosine": statistics.mean(cosines),
            "exact_cosine_spread": statistics.pstdev(cosines),
            "exact_time_ratio": _over(self._mean("seconds"), exact._mean("seconds")),
        }

    def _mean(self, name: str) -> float:
        return float(statistics.mean(getattr(draw, name) for draw in self._all))


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
