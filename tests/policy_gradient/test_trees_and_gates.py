"""Which rows are the same when, what branches are worth, and what the gates count."""

import math

import pytest
import torch

from sdo_ray.backprop.transitions import Branching
from sdo_ray.policy_gradient import edge_advantages, group_statistics, sign_agreement
from tests.backprop.tiny import seeded


def test_rows_that_are_the_same() -> None:
    tree = Branching({0: 2, 3: 3})
    assert tree.leaves == 6
    assert [tree.same_before(step) for step in range(5)] == [6, 3, 3, 3, 1]
    assert [tree.same_after(step) for step in range(5)] == [3, 3, 3, 1, 1]
    assert Branching({}).leaves == 1


def test_one_split_is_a_group() -> None:
    r = torch.tensor([1.0, 2.0, 6.0, 0.0, 0.5, 4.0], dtype=torch.float64)
    found = edge_advantages(Branching({4: 3}), r)
    assert list(found) == [4]
    for group, a in zip(r.view(2, 3), found[4].view(2, 3), strict=True):
        torch.testing.assert_close(a, (group - group.mean()) / (group.std(correction=0) + 1e-8))


def test_depths_by_hand() -> None:
    """Two trees of depth 2: children of the roots are worth the mean of their leaves."""
    leaves = torch.tensor([1.0, 3.0, 10.0, math.nan, 5.0, 5.0, 5.0, 5.0], dtype=torch.float64)
    found = edge_advantages(Branching({1: 2, 2: 2}), leaves)
    torch.testing.assert_close(
        found[1], torch.tensor([-1, -1, 1, 1, 0, 0, 0, 0], dtype=torch.float64), atol=1e-7, rtol=0
    )
    there = leaves[:3]
    a = (there - there.mean()) / (there.std(correction=0) + 1e-8)
    torch.testing.assert_close(found[2], torch.cat([a, torch.zeros(5, dtype=torch.float64)]))


def test_depths_by_likelihood_by_hand() -> None:
    """A child is worth what its own children are by softmax(log p); a leaf that is missing leaves the others theirs."""
    leaves = torch.tensor([1.0, 3.0, 10.0, 20.0, 0.0, math.nan, 4.0, 4.0], dtype=torch.float64)
    last = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5, 0.0, 3.0, 0.0], dtype=torch.float64)
    found = edge_advantages(Branching({0: 2, 1: 2}), leaves, {0: torch.zeros(8), 1: last})
    one, two = 1 + 2 / (1 + math.exp(-1)), 10 + 10 / (1 + math.exp(3))
    assert two > one
    assert found[0][:4].tolist() == pytest.approx([-1, -1, 1, 1])
    assert found[0][4:].tolist() == pytest.approx([-1, -1, 1, 1])  # 0 and 4
    for split, a in edge_advantages(Branching({0: 2, 1: 2}), leaves).items():
        alike = edge_advantages(Branching({0: 2, 1: 2}), leaves, dict.fromkeys((0, 1), torch.ones(8)))
        torch.testing.assert_close(alike[split], a)


def test_three_depths_by_likelihood_are_the_recursion() -> None:
    """R(node) = sum_c softmax(log p_c) R(c), from the leaves up."""
    tree, generator = Branching({0: 2, 2: 3, 5: 2}), seeded(3)
    leaves = torch.randn(12, generator=generator, dtype=torch.float64)
    log_probs = {
        k: torch.randn(12 // tree.same_after(k), generator=generator).double().repeat_interleave(tree.same_after(k))
        for k in tree.splits
    }
    worth = leaves
    for split in (5, 2):
        run = tree.same_after(split)
        w = log_probs[split][::run].view(-1, tree.splits[split]).softmax(1)
        worth = (w * worth.view(w.shape)).sum(1)
    expected = (worth - worth.mean()) / (worth.std(correction=0) + 1e-8)
    torch.testing.assert_close(edge_advantages(tree, leaves, log_probs)[0], expected.repeat_interleave(6))


def test_a_branch_without_scores_has_no_part() -> None:
    leaves = torch.tensor([1.0, 3.0, math.nan, math.nan])
    found = edge_advantages(Branching({0: 2, 1: 2}), leaves)
    assert (found[0] == 0).all()  # nothing to compare the first branch with
    assert found[1].tolist() == pytest.approx([-1, 1, 0, 0])


def test_statistics_of_groups() -> None:
    groups = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    r = torch.tensor([0.0, 2.0, math.nan, 1.0, 1.0, 1.0, 3.0, math.nan, math.nan])
    told = group_statistics(r, groups)
    assert (told.groups, told.flat, told.missing, told.spread) == (3, 2, 3, 1.0)
    assert told.flat_share == pytest.approx(2 / 3)


def test_signs_agree_where_who_is_better_is_clear() -> None:
    groups = torch.arange(64) // 16
    clear = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(16) + 0.01 * torch.randn(64, generator=seeded(0))
    assert sign_agreement(clear, groups) == 1.0
    # groups of four normal numbers: halves of two and one
    noise = torch.randn(4000, generator=seeded(1))
    assert 0.5 < sign_agreement(noise, torch.arange(4000) // 4) < 0.8
    assert math.isnan(sign_agreement(torch.tensor([1.0, 2.0, math.nan, 3.0]), torch.zeros(4)))
