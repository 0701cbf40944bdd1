"""Polynomials are continued exactly, whatever the spacing of the steps; outputs keep their form."""

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

from sdo_ray.cheap_steps.continuation import Continuation, lagrange_weights

STEPS = [0, 1, 4, 6]
X = [torch.zeros(2, 3)]


def polynomial(step: int, degree: int) -> torch.Tensor:
    coefficients = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.25, -1.0], [-0.125, 0.5]], dtype=torch.float64)
    return sum(coefficients[p] * step**p for p in range(degree + 1))


@pytest.mark.parametrize("order", range(4))
def test_a_polynomial_of_its_degree_is_continued_exactly(order: int) -> None:
    known = Continuation(order)
    for step in STEPS:
        known.observe(step, X, polynomial(step, order))
    for step in (7, 9, 12):
        assert torch.allclose(known.predict(step), polynomial(step, order), rtol=1e-12, atol=0)
        assert known.error(step, polynomial(step, order)) < 1e-6
    if order < 3:
        assert not torch.allclose(known.predict(9), polynomial(9, order + 1))


def test_weights_are_one_at_their_own_step_and_sum_to_one() -> None:
    assert lagrange_weights([3, 5, 8], 5) == [0.0, 1.0, 0.0]
    assert sum(lagrange_weights([0, 2, 7], 11)) == pytest.approx(1)
    assert lagrange_weights([2], 9) == [1.0]
    assert lagrange_weights([3, 6], 8) == pytest.approx([-2 / 3, 5 / 3])


def test_fewer_outputs_than_its_order_takes_are_continued_by_as_many() -> None:
    known = Continuation(2)
    known.observe(0, X, torch.tensor([1.0]))
    assert known.predict(3).item() == 1
    known.observe(2, X, torch.tensor([2.0]))
    assert known.predict(4).item() == 3


def test_outputs_keep_their_form_and_are_nobody_elses() -> None:
    known, given = Continuation(0), torch.ones(2, requires_grad=True)
    nested = {"a": (given * 1, [torch.tensor([3])]), "b": None}
    known.observe(0, X, nested)
    first, second = known.predict(1), known.predict(1)
    assert isinstance(first["a"], tuple)
    assert first["b"] is None
    assert first["a"][1][0].item() == 3
    assert not first["a"][0].requires_grad
    first["a"][0].mul_(5)
    assert torch.equal(second["a"][0], torch.ones(2))
    assert torch.equal(known.predict(2)["a"][0], torch.ones(2))
    known.observe(1, X, UNet2DConditionOutput(sample=given))
    assert torch.equal(known.predict(2).sample, given)
    assert known.predict(2)[0] is not given
    half = Continuation(1)
    half.observe(0, X, torch.ones(1, dtype=torch.bfloat16))
    half.observe(1, X, torch.ones(1, dtype=torch.bfloat16))
    assert half.predict(2).dtype is torch.bfloat16


def test_a_call_of_other_shapes_is_another_call() -> None:
    known = Continuation(1)
    known.observe(0, X, torch.tensor([1.0]))
    known.observe(1, X, torch.tensor([2.0]))
    assert known.fits(X)
    assert not known.fits([torch.zeros(4, 3)])
    known.observe(2, [torch.zeros(4, 3)], torch.tensor([5.0]))
    assert known.predict(3).item() == 5


def test_outputs_of_another_shape_are_another_thing() -> None:
    known = Continuation(1)
    known.observe(0, (), torch.ones(3))
    assert known.error(1, torch.ones(4)) == float("inf")
    known.observe(1, (), torch.full((4,), 2.0))
    assert torch.equal(known.predict(2), torch.full((4,), 2.0))
