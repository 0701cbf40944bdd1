"""The numbers have their closed forms, and the estimates come to what they estimate."""

import json
import math
import statistics
from dataclasses import replace

import pytest
import torch

from rewards.pulls import Pull
from sdo_ray.fidelity.estimates import Products, bias_of, cosine_of, jackknife, signed_square
from sdo_ray.fidelity.gradients import MeasuredGradient
from sdo_ray.fidelity.rewards import RewardPulls
from sdo_ray.fidelity.summary import Fidelity, PlanTally, cosine, step_fidelity
from sdo_ray.fidelity.table import as_table, suggestions


def measured(*values: float, seconds: float = 1.0, saved: int = 100, rows: int = 60) -> MeasuredGradient:
    return MeasuredGradient(torch.tensor(values), seconds, saved, reward=0.5, rows=rows)


def tally(name: str, batches: list[list[MeasuredGradient]], full: list[MeasuredGradient]) -> PlanTally:
    plan = PlanTally(name)
    for draws, reference in zip(batches, full, strict=True):
        plan.add(draws, reference.gradient)
    return plan


FULL = [measured(3.0, 4.0), measured(5.0, 0.0)]


def test_full_is_faithful_to_itself() -> None:
    full = tally("full", [[f, f] for f in FULL], FULL)
    numbers = full.summary(full)
    assert numbers.cosine == pytest.approx(1)
    assert numbers.norm_ratio == pytest.approx(1)
    assert numbers.draw_cosine == pytest.approx(1)
    assert numbers.bias == pytest.approx(0, abs=1e-9)
    assert numbers.variance == numbers.draw_cosine_spread == 0
    assert (numbers.time_ratio, numbers.saved_ratio) == (1, 1)


def test_scale_is_in_the_norm_alone() -> None:
    full = tally("full", [[f, f] for f in FULL], FULL)
    third = [[measured(*(f.gradient / 3).tolist(), seconds=0.5, saved=25)] * 2 for f in FULL]
    numbers = tally("third", third, FULL).summary(full)
    assert numbers.cosine == pytest.approx(1)
    assert numbers.norm_ratio == pytest.approx(1 / 3)
    assert numbers.bias == pytest.approx(0, abs=1e-6)
    assert (numbers.time_ratio, numbers.saved_ratio) == (0.5, 0.25)


def test_bias_and_variance_in_closed_form() -> None:
    full = [measured(2.0, 0.0)] * 2
    reference = tally("full", [[f, f] for f in full], full)
    # Mean (1, 1); each draw is (1, 1) +- (0, d): variance 2 d^2 from two draws, a quarter of it in the mean of four.
    d = 0.5
    draws = [[measured(1.0, 1.0 + d), measured(1.0, 1.0 - d)]] * 2
    numbers = tally("plan", draws, full).summary(reference)
    m2 = 2 - 2 * d**2 / 4
    assert numbers.cosine == pytest.approx(2 / (2 * math.sqrt(m2)))
    assert numbers.norm_ratio == pytest.approx(math.sqrt(m2) / 2)
    assert numbers.bias == pytest.approx(math.sqrt(1 - 1 / m2))
    # c = m . F / |m|^2.
    assert numbers.variance == pytest.approx((2 / m2) ** 2 * 2 * d**2 / 4)
    cosines = [1 / math.hypot(1, 1 + d), 1 / math.hypot(1, 1 - d)]
    assert numbers.draw_cosine == pytest.approx(sum(cosines) / 2)
    assert numbers.draw_cosine_spread == pytest.approx(abs(cosines[0] - cosines[1]) / 2)


@pytest.mark.parametrize("size", [1.0, 16.0])
def test_a_plan_without_bias_has_none(size: float) -> None:
    """Simulated: with noise as large as the gradient, or four times, estimates of the squared cosine lie around 1, and
    intervals of the bias reach down to 0 in 95 % of cases or more (where there is none, the jackknife is wide)."""
    P, B, D, times = 300, 4, 2, 300
    noise = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, P, generator=noise, dtype=torch.float64) / math.sqrt(P)

    squares, covered = [], 0
    for _ in range(times):
        F = normal() + normal(B)
        G = F[:, None] + math.sqrt(size) * normal(B, D)
        V = G.var(dim=1).sum(dim=1).tolist()
        square = jackknife(Products.of(G.mean(dim=1), F, V, D), signed_square)
        bias = square.map(bias_of)
        assert square.value is not None
        squares.append(square.value)
        covered += bias.low == 0
    assert covered / times > 0.95 - 3 * math.sqrt(0.05 * 0.95 / times)
    assert statistics.mean(squares) == pytest.approx(1, abs=4 * statistics.stdev(squares) / math.sqrt(times))


def test_intervals_cover_a_bias_that_there_is() -> None:
    """Of a plan whose batches differ in how they point elsewhere: the true cosine over many batches is covered."""
    P, B, times = 300, 8, 300
    noise = torch.Generator().manual_seed(0)
    across = torch.linalg.qr(torch.randn(P, 2, generator=noise, dtype=torch.float64))[0].T
    covered = 0
    for _ in range(times):
        angles = 0.6 + 0.3 * torch.randn(B, generator=noise, dtype=torch.float64)
        G_b = torch.stack([a.cos() * across[0] + a.sin() * across[1] for a in angles])
        products = Products.of(G_b, across[:1].expand(B, P), [0.0] * B, 2)
        cosine_ = jackknife(products, signed_square).map(cosine_of)
        assert cosine_.low is not None
        assert cosine_.high is not None
        covered += cosine_.low <= math.cos(0.6) <= cosine_.high  # of the mean direction, by symmetry
    assert abs(covered / times - 0.95) < 3 * math.sqrt(0.05 * 0.95 / times) + 0.01


def test_one_draw_of_nothing_but_noise_says_so() -> None:
    full = tally("full", [[f, f] for f in FULL], FULL)
    noisy = tally("noise", [[measured(1.0, 1.0), measured(-1.0, -0.9)]] * 2, FULL).summary(full)
    assert (noisy.cosine, noisy.bias, noisy.variance, noisy.norm_ratio) == (None,) * 4
    assert "too noisy" in as_table(Fidelity([noisy], [], None))
    assert "fidelity/noise/cosine" not in Fidelity([noisy], [], None).metrics()


def test_rewards_are_told_of_all_batches() -> None:
    batches = [
        [replace(f, pulls={"a": Pull(images=1, pulling=1, squares=n), "b": Pull(images=1)}, cosines={"a/b": n / 4})]
        for f, n in zip(FULL, (1.0, 3.0), strict=True)
    ]
    full = tally("full", batches, FULL)
    fidelity = Fidelity([full.summary(full)], [], None, full.rewards)
    read = Fidelity.from_dict(json.loads(json.dumps(fidelity.to_dict())))
    assert read.rewards == RewardPulls({"a": math.sqrt(2)}, {"a/b": 0.5})
    assert read.metrics()["reward_cosine/a/b"] == 0.5
    said = as_table(read).splitlines()
    assert ["a", "1.41"] in [line.split() for line in said]
    assert ["a/b", "0.500"] in [line.split() for line in said]


def test_numbers_of_an_earlier_version_are_read() -> None:
    full = tally("full", [[f, f] for f in FULL], FULL)
    data = Fidelity([full.summary(full)], [], None).to_dict()
    del data["rewards"]
    newer = ("_low", "_high", "rows", "rows_ratio", "for_the_calls")
    for name in [name for name in data["plans"][0] if name.endswith(newer)]:
        del data["plans"][0][name]
    read = Fidelity.from_dict(json.loads(json.dumps(data)))
    assert read.plans[0].cosine == pytest.approx(1)
    assert "full" in as_table(read)


def test_cheap_steps_stand_beside_the_exact_ones() -> None:
    full = tally("full", [[f, f] for f in FULL], FULL)
    exact = tally("sdo", [[measured(1.0, 0.0, seconds=4.0)] * 2 for _ in FULL], FULL)
    cheap = tally("sdo taylor", [[measured(3.0, 3.0)] * 2, [measured(2.0, 0.0)] * 2], FULL).summary(full, exact)
    assert cheap.exact_cosine == pytest.approx((math.sqrt(0.5) + 1) / 2)
    assert cheap.exact_cosine_spread == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert cheap.exact_time_ratio == pytest.approx(1 / 4)
    assert exact.summary(full).exact_cosine is None
    both = as_table(Fidelity([exact.summary(full), cheap], [], None))
    assert "sdo taylor              0.25          0.854 +- 0.146" in both


def test_a_plan_that_points_elsewhere() -> None:
    full = tally("full", [[f, f] for f in FULL], FULL)
    against = tally("against", [[measured(*(-f.gradient).tolist())] * 2 for f in FULL], FULL).summary(full)
    assert (against.cosine, against.bias) == (pytest.approx(-1), 1)
    nothing = tally("nothing", [[measured(0.0, 0.0)] * 2 for _ in FULL], FULL).summary(full)
    assert (nothing.cosine, nothing.norm_ratio, nothing.bias) == (0, 0, 1)
    assert nothing.for_the_price is None


def test_for_the_price_is_the_cosine_of_the_mean_of_as_many_updates() -> None:
    """Against a simulation: draws around known means, with noise of batches and of draws, four updates for the time
    of one; the mean of four has that cosine, up to the fluctuation of its norm in 400 dimensions."""
    P, B, D, n = 400, 300, 2, 4
    torch.manual_seed(0)
    EF = torch.randn(P)
    EG = 0.5 * EF + 0.3 * torch.randn(P)
    by_batch = 0.7 * torch.randn(B, P)
    full = [measured(*(EF + 2 * noise).tolist(), seconds=float(n), rows=240) for noise in by_batch]
    plan = [[measured(*(EG + noise + 1.5 * torch.randn(P)).tolist()) for _ in range(D)] for noise in by_batch]
    reference = tally("full", [[f, f] for f in full], full)
    numbers = tally("plan", plan, full).summary(reference)
    got = numbers.for_the_price
    fresh = torch.stack([(EG + 0.7 * torch.randn(n, P) + 1.5 * torch.randn(n, P)).mean(dim=0) for _ in range(200)])
    expected = sum(cosine(mean, EF) for mean in fresh) / len(fresh)
    assert got == pytest.approx(expected, abs=0.02)
    # for the calls of one, four updates too
    assert (numbers.rows_ratio, numbers.for_the_calls) == (0.25, got)
    of_full = sum(cosine(EF + 1.4 * torch.randn(P), EF) for _ in range(200)) / 200
    assert reference.summary(reference).for_the_price == pytest.approx(of_full, abs=0.02)


def test_noise_alone_is_said_to_be_noise() -> None:
    full = [measured(1.0, 0.0), measured(-1.0, 0.1)]
    reference = tally("full", [[f, f] for f in full], full)
    assert reference.summary(reference).for_the_price is None
    assert "too noisy" in as_table(Fidelity([reference.summary(reference)], [], None))


def test_what_one_batch_makes_or_breaks_is_said_to_be_noise() -> None:
    """|m|^2 is estimated to be a little above 0, and below without the second batch."""
    full = [measured(1.0, 0.0)] * 2
    reference = tally("full", [[f, f] for f in full], full)
    draws = [[measured(0.0, 0.9), measured(0.0, -0.9)], [measured(1.0, 0.0), measured(1.0, 0.0)]]
    numbers = tally("plan", draws, full).summary(reference)
    assert (numbers.cosine, numbers.bias, numbers.variance, numbers.norm_ratio) == (None,) * 4
    assert "too noisy" in as_table(Fidelity([reference.summary(reference), numbers], [], None))


def test_steps_in_closed_form() -> None:
    full = [measured(1.0, 1.0)] * 2
    reference = tally("full", [[f, f] for f in full], full)
    steps = [[torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])]] * 2
    (first, second), direct = step_fidelity(steps, reference)
    assert first.cosine == second.cosine == pytest.approx(math.sqrt(0.5))
    assert first.norm_ratio == pytest.approx(1 / math.sqrt(2))
    assert second.norm_ratio == pytest.approx(math.sqrt(2))
    assert first.direct_cosine == pytest.approx(1 / math.sqrt(5))
    assert second.direct_norm_ratio == pytest.approx(2 / math.sqrt(5))
    assert direct == pytest.approx(3 / math.sqrt(10))
    assert first.cosine_spread == 0


def test_numbers_survive_a_file_and_come_as_text_and_metrics() -> None:
    full = tally("full", [[f, f] for f in FULL], FULL)
    other = tally("sdo K 2", [[measured(1.0, 1.0)] * 2 for _ in FULL], FULL)
    steps, direct = step_fidelity([[f.gradient, f.gradient] for f in FULL], full)
    fidelity = Fidelity([full.summary(full), other.summary(full)], steps, direct)
    assert Fidelity.from_dict(json.loads(json.dumps(fidelity.to_dict()))) == fidelity
    assert fidelity.metrics()["fidelity/sdo K 2/cosine"] == fidelity.plans[1].cosine
    assert "sdo K 2" in as_table(fidelity)
    assert suggestions(fidelity)[0].startswith("one draw nearest to full: sdo K 2 ")
