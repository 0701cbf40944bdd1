"""What noise leaves of the nearness of two gradients: estimates that noise does not bias, with intervals.

Notation
    F_b, G_bd   gradient of `full` on batch b; of a plan on it with draw d of its steps: mu_b plus noise, mean zero
    B, D        batches; draws
    G_b, G, F   mean of G_bd over draws; of G_b over batches; of F_b over batches
    V_draw      variance of G_bd around mu_b, all components added up, mean over batches
    m           mean of mu_b over the batches

|G|^2 has the noise in it: its expectation is |m|^2 + V_draw / (B D). So an estimator without any bias would be given
one, the more the noisier it is. G . F and |F|^2 are free of it, and |m|^2 is estimated by |G|^2 - V_draw / (B D).

Intervals are jackknives over batches (Efron and Stein 1981) with quantiles of Student's t for B - 1 degrees of freedom:
of the signed square of the cosine, from which those of cosine and bias follow. All sums are of inner products between
batches, so nothing but B x B numbers of a plan is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Products:
    """Inner products of a plan's and full's gradients between batches."""

    GG: np.ndarray
    """G_b . G_b', float64 [B, B]."""
    GF: np.ndarray
    """G_b . F_b', float64 [B, B]."""
    FF: np.ndarray
    """F_b . F_b', float64 [B, B]."""
    V: np.ndarray
    """V_draw of each batch, float64 [B]."""
    draws: int
    """D."""

    @classmethod
    def of(cls, G_b: torch.Tensor, F_b: torch.Tensor, V: list[float], draws: int) -> Products:
        """Those of the vectors, [B, P]."""
        GG, GF, FF = ((a @ b.T).numpy() for a, b in ((G_b, G_b), (G_b, F_b), (F_b, F_b)))
        return cls(GG, GF, FF, np.array(V), draws)

    def without(self, b: int) -> Products:
        """Those of all batches but one."""
        rest = np.delete(np.arange(len(self.V)), b)
        both = np.ix_(rest, rest)
        return Products(self.GG[both], self.GF[both], self.FF[both], self.V[rest], self.draws)

    @property
    def noise(self) -> float:
        """What the draws' noise adds to |G|^2."""
        return float(self.V.mean()) / (len(self.V) * self.draws)

    @property
    def m2(self) -> float:
        """Estimate of |m|^2; not positive where noise leaves nothing of it."""
        return float(self.GG.mean()) - self.noise

    @property
    def scale(self) -> float:
        """c >= 0 that brings the plan nearest to full: argmin of |c m - F|."""
        return max(0.0, float(self.GF.mean())) / self.m2 if self.m2 > 0 else 0.0


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; None where noise leaves nothing to tell."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def map(self, function: Callable[[float], float]) -> Estimate:
        """The same of a monotonous function of the number."""
        if self.value is None or self.low is None or self.high is None:
            return Estimate(None if self.value is None else function(self.value))
        low, high = sorted((function(self.low), function(self.high)))
        return Estimate(function(self.value), low, high)


def jackknife(products: Products, statistic: Callable[[Products], float | None]) -> Estimate:
    """A statistic with its interval; without one where it cannot be told for all batches but any."""
    value, B = statistic(products), len(products.V)
    left = [x for b in range(B) if (x := statistic(products.without(b))) is not None]
    if value is None or len(left) < B:
        return Estimate(value)
    error = math.sqrt((B - 1) * float(np.var(left)))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, B - 1)) * error
    return Estimate(value, value - half, value + half)


def signed_square(products: Products) -> float | None:
    """cos |cos| of m and F; 0 if either is zero, None if noise leaves nothing of m."""
    F2, GF = float(products.FF.mean()), float(products.GF.mean())
    if not F2 or (not products.noise and not products.m2):
        return 0.0
    return GF * abs(GF) / (products.m2 * F2) if products.m2 > 0 else None


def cosine_of(square: float) -> float:
    """The cosine, -1 .. 1, of an estimate of its signed square, which noise may take beyond 1."""
    return math.copysign(math.sqrt(min(1.0, abs(square))), square)


def bias_of(square: float) -> float:
    """|c m - F| / |F|, the sine of the angle between m and F, or 1 beyond a right one: 0 .. 1."""
    return math.sqrt(min(1.0, max(0.0, 1.0 - max(0.0, square))))


def for_the_price(products: Products, n: float) -> float | None:
    """Cosine with the gradient of `full` over all prompts that the mean of n updates has, each on its own batch.

    E[G] . E[F] / ( |E[F]| sqrt( |E[G]|^2 + (V_batch + V_draw) / n ) ), expectations over batches, of which there is a
    sample: their squares are estimated by the products of different batches alone.

    Args:
        products: of B >= 2 batches.
        n: more than 0.
    """
    B = len(products.V)
    if B < 2:
        return None
    (EG2, spread), (EF2, _), (EGF, _) = (_between(x) for x in (products.GG, products.FF, products.GF))
    V_draw = float(products.V.mean())
    V_batch = max(0.0, spread - V_draw / products.draws)
    if EG2 <= 0 or EF2 <= 0:
        return None
    return EGF / math.sqrt(EF2 * (EG2 + (V_batch + V_draw) / n))


def _between(products: np.ndarray) -> tuple[float, float]:
    """Mean product of different batches, and what products of a batch with itself have more: the variance between."""
    B = len(products)
    own = float(products.diagonal().sum()) / B
    different = (float(products.sum()) - B * own) / (B * (B - 1))
    return different, own - different
