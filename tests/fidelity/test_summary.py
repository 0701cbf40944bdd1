"""The numbers have their closed forms, and the estimates come to what they estimate."""

import json
import math

import pytest
import torch

from sdo_ray.fidelity.gradients import MeasuredGradient
from sdo_ray.fidelity.summary import Fidelity, PlanTally, cosine, step_fidelity
from sdo_ray.fidelity.table import as_table, suggestions


def measured(*values: float, seconds: float = 1.0, saved: int = 100) -> MeasuredGradient:
    return MeasuredGradient(torch.tensor(values), seconds, saved, reward=0.5)


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
    # Mean (1, 1), 45 degrees off; each draw is (1, 1) +- (0, d): variance 2 d^2 from two draws.
    d = 0.5
    draws = [[measured(1.0, 1.0 + d), measured(1.0, 1.0 - d)]] * 2
    numbers = tally("plan", draws, full).summary(reference)
    assert numbers.cosine == pytest.approx(math.sqrt(0.5))
    assert numbers.norm_ratio == pytest.approx(math.sqrt(0.5))
    assert numbers.bias == pytest.approx(math.sqrt(0.5))
    # c = G . F / |G|^2 = 1, so the variance is 2 d^2 / |F|^2.
    assert numbers.variance == pytest.approx(2 * d**2 / 4)
    cosines = [1 / math.hypot(1, 1 + d), 1 / math.hypot(1, 1 - d)]
    assert numbers.draw_cosine == pytest.approx(sum(cosines) / 2)
    assert numbers.draw_cosine_spread == pytest.approx(abs(cosines[0] - cosines[1]) / 2)


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
    full = [measured(*(EF + 2 * noise).tolist(), seconds=float(n)) for noise in by_batch]
    plan = [[measured(*(EG + noise + 1.5 * torch.randn(P)).tolist()) for _ in range(D)] for noise in by_batch]
    reference = tally("full", [[f, f] for f in full], full)
    got = tally("plan", plan, full).summary(reference).for_the_price
    fresh = torch.stack([(EG + 0.7 * torch.randn(n, P) + 1.5 * torch.randn(n, P)).mean(dim=0) for _ in range(200)])
    expected = sum(cosine(mean, EF) for mean in fresh) / len(fresh)
    assert got == pytest.approx(expected, abs=0.02)
    of_full = sum(cosine(EF + 1.4 * torch.randn(P), EF) for _ in range(200)) / 200
    assert reference.summary(reference).for_the_price == pytest.approx(of_full, abs=0.02)


def test_noise_alone_is_said_to_be_noise() -> None:
    full = [measured(1.0, 0.0), measured(-1.0, 0.1)]
    reference = tally("full", [[f, f] for f in full], full)
    assert reference.summary(reference).for_the_price is None
    assert "too noisy" in as_table(Fidelity([reference.summary(reference)], [], None))


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
