"""Combinations of gradients by what they promise, image by image."""

from typing import Any

import pytest
import torch

from rewards.conflicts import COMBINATIONS, dot, mgda, pcgrad, weighted_sum


def gradients(count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, 40, 3, 1, 2, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("combination", COMBINATIONS.values())
def test_rewards_that_agree_are_added(combination: Any) -> None:
    one = gradients(1)[0]
    for factor in (1.0, 1.5):
        got = combination([one, factor * one])
        # The shortest combination of two that agree is the shorter one.
        expected = 2 * one if combination is mgda else (1 + factor) * one
        torch.testing.assert_close(got, expected)


def test_pcgrad_of_two_in_closed_form() -> None:
    """Each loses its part along the other where they conflict, and neither then opposes the other's original."""
    one, two = gradients(2)
    got = pcgrad([one, two])
    conflict = dot(one, two) < 0
    assert 5 < conflict.sum() < 35
    torch.testing.assert_close(got[~conflict], (one + two)[~conflict])
    a, b = one[conflict].flatten(1), two[conflict].flatten(1)
    inner = (a * b).sum(1, keepdim=True)
    expected = a - inner / (b * b).sum(1, keepdim=True) * b + b - inner / (a * a).sum(1, keepdim=True) * a
    torch.testing.assert_close(got[conflict].flatten(1), expected)
    for g in (one, two):
        assert (dot(got, g) >= -1e-12).all()


def test_pcgrad_of_three_is_its_algorithm() -> None:
    three = gradients(3)
    expected = torch.zeros_like(three[0])
    for b in range(len(expected)):
        for i in range(3):
            g = three[i][b].clone()
            for j in range(3):
                if j != i and (g * three[j][b]).sum() < 0:
                    g -= (g * three[j][b]).sum() / three[j][b].square().sum() * three[j][b]
            expected[b] += g
    torch.testing.assert_close(pcgrad(three), expected)


def test_mgda_is_the_shortest_and_goes_up_for_both() -> None:
    one, two = gradients(2)
    got = mgda([one, 3 * two])
    shares = torch.linspace(0, 1, 2001, dtype=torch.float64).reshape(-1, 1, 1, 1, 1)
    lengths = (shares * one + (1 - shares) * 3 * two).flatten(2).norm(dim=2).min(dim=0).values
    torch.testing.assert_close(got.flatten(1).norm(dim=1), 2 * lengths, rtol=1e-3, atol=1e-3)
    for g in (one, two):
        assert (dot(got, g) >= -1e-12).all()


@pytest.mark.parametrize("combination", COMBINATIONS.values())
def test_a_reward_with_nothing_to_say_of_an_image_leaves_it_to_the_other(combination: Any) -> None:
    one, two = gradients(2)
    two[3] = 0
    torch.testing.assert_close(combination([one, two])[3], one[3])
    assert torch.equal(weighted_sum([two, torch.zeros_like(two)]), two)
