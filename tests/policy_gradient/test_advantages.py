"""Advantages against their formulas, written out group by group; who is missing is missing."""

import pytest
import torch

from sdo_ray.policy_gradient import ADVANTAGES, advantages
from sdo_ray.policy_gradient.advantages import CLAMP
from tests.backprop.tiny import seeded

GROUPS = torch.tensor([0, 0, 0, 1, 1, 1, 1])
R = torch.tensor([1.0, 2.0, 6.0, -1.0, 0.5, 0.25, 3.0], dtype=torch.float64)
OTHER = torch.tensor([100.0, 50.0, 75.0, 10.0, 40.0, 0.0, 0.0], dtype=torch.float64)


def by_group(kind: str, r: torch.Tensor) -> torch.Tensor:
    parts = []
    for group in (r[:3], r[3:]):
        centred = group - group.sum() / len(group)
        biased = (centred.square().sum() / len(group)).sqrt()
        parts.append(
            {
                "plain": centred,
                "group": centred / (biased + 1e-4),
                "global-std": centred / ((r - r.mean()).square().mean().sqrt() + 1e-4),
                "dance": centred / ((centred.square().sum() / (len(group) - 1)).sqrt() + 1e-8),
            }[kind]
        )
    return torch.cat(parts)


@pytest.mark.parametrize("kind", ["plain", "group", "global-std", "dance"])
def test_of_a_weighted_reward(kind: str) -> None:
    expected = by_group(kind, 2 * R - 0.1 * OTHER).clamp(-5, 5)
    torch.testing.assert_close(advantages(kind, [R, OTHER], [2.0, -0.1], GROUPS), expected)


def test_each_reward_by_itself_has_no_units() -> None:
    expected = by_group("group", R) - 0.5 * by_group("group", OTHER)
    torch.testing.assert_close(advantages("mix", [R, OTHER], [1.0, -0.5], GROUPS), expected)
    torch.testing.assert_close(advantages("mix", [R, 1e3 * OTHER], [1.0, -0.5], GROUPS), expected, rtol=1e-4, atol=1e-4)
    standard = (expected - expected.mean()) / (expected.std(correction=0) + 1e-4)
    torch.testing.assert_close(advantages("gdpo", [R, OTHER], [1.0, -0.5], GROUPS), standard)


def test_mix_without_the_lowest_scores() -> None:
    """MixGRPO's `trimmed_ratio`: mean and deviation are of the rest, and the lowest are judged by them too."""
    r = torch.tensor([-50.0, 0.0, 1.0, 3.0, 8.0], dtype=torch.float64)
    rest = r[1:]
    expected = ((r - rest.mean()) / (rest.std(correction=0) + 1e-4)).clamp(-5, 5)
    groups = torch.zeros(5, dtype=torch.long)
    shuffled = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(advantages("mix", [r[shuffled]], [1.0], groups, trimmed=0.2), expected[shuffled])
    assert (advantages("mix", [r], [1.0], groups, trimmed=0.1) == advantages("mix", [r], [1.0], groups)).all()
    two = advantages("mix", [r], [1.0], groups, trimmed=0.99)  # a deviation takes two
    torch.testing.assert_close(two[3:], (r[3:] - 5.5) / (2.5 + 1e-4))


@pytest.mark.parametrize("kind", ADVANTAGES)
def test_a_constant_reward_is_exactly_zero(kind: str) -> None:
    constant = torch.full((7,), 0.1)
    assert (advantages(kind, [constant], [3.0], GROUPS) == 0).all()


@pytest.mark.parametrize("kind", ADVANTAGES)
@pytest.mark.parametrize("missing", [torch.nan, torch.inf])
def test_a_missing_score_is_as_if_the_sample_were_not_there(kind: str, missing: float) -> None:
    with_holes = R.clone()
    with_holes[[1, 5]] = missing
    there = torch.tensor([0, 2, 3, 4, 6])
    got = advantages(kind, [with_holes, OTHER], [1.0, 0.01], GROUPS)
    assert (got[[1, 5]] == 0).all()
    torch.testing.assert_close(got[there], advantages(kind, [R[there], OTHER[there]], [1.0, 0.01], GROUPS[there]))


@pytest.mark.parametrize("kind", ADVANTAGES)
def test_one_alone_learns_nothing(kind: str) -> None:
    r = torch.tensor([3.0, torch.nan, torch.nan])
    assert (advantages(kind, [r], [1.0], torch.tensor([0, 0, 0])) == 0).all()
    assert (advantages(kind, [r[:1]], [1.0], torch.tensor([0])) == 0).all()


@pytest.mark.parametrize("kind", ADVANTAGES)
def test_order_does_not_matter(kind: str) -> None:
    order = torch.randperm(7, generator=seeded(3))
    shuffled = advantages(kind, [R[order]], [1.0], GROUPS[order])
    torch.testing.assert_close(shuffled, advantages(kind, [R], [1.0], GROUPS)[order])


def test_an_outlier_is_clamped() -> None:
    r = torch.zeros(100)
    r[7] = 1.0
    a = advantages("group", [r], [1.0], torch.zeros(100, dtype=torch.long))
    assert a.max() == 5.0


def test_only_the_best_and_the_worst() -> None:
    a = advantages("plain", [R], [1.0], GROUPS, best_and_worst=2)
    full = advantages("plain", [R], [1.0], GROUPS)
    kept = torch.tensor([True, False, True, True, False, False, True])
    assert torch.equal(a, torch.where(kept, full, 0.0))
    holes = R.clone()
    holes[3] = torch.nan
    assert advantages("plain", [holes], [1.0], GROUPS, best_and_worst=2).nonzero().flatten().tolist() == [0, 2, 5, 6]


@pytest.mark.parametrize("kind", ["plain", "mix", "gdpo", "global-std"])
def test_a_group_weighs_what_its_weight_says(kind: str) -> None:
    alike, heavier = (
        advantages(kind, [R, OTHER], [torch.where(GROUPS == 0, first, 0.5), 0.01], GROUPS) for first in (0.5, 1.0)
    )
    first = GROUPS == 0
    assert alike.abs().max() < CLAMP
    assert (alike - advantages(kind, [R, OTHER], [0.5, 0.01], GROUPS)).abs().max() < 1e-12
    assert (heavier[first].abs().sum() / heavier[~first].abs().sum()) > 1.5 * (
        alike[first].abs().sum() / alike[~first].abs().sum()
    )
