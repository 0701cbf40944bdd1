"""The same weights have one fingerprint, and others another."""

import pytest
import torch

from sdo_ray.models.fingerprint import fingerprint

WEIGHTS = {"a": torch.linspace(-1, 1, 12).view(3, 4), "b": torch.arange(5)}


def test_it_is_of_the_weights_alone() -> None:
    again = {"b": torch.arange(5), "a": torch.linspace(-1, 1, 12).view(3, 4).t().contiguous().t().requires_grad_()}
    assert fingerprint(again) == fingerprint(WEIGHTS)
    assert len(fingerprint(WEIGHTS)) == 16


@pytest.mark.parametrize(
    "other",
    [
        {"a": WEIGHTS["a"]},
        {"a": WEIGHTS["a"], "c": WEIGHTS["b"]},
        {**WEIGHTS, "a": WEIGHTS["a"].view(4, 3)},
        {**WEIGHTS, "a": WEIGHTS["a"].nextafter(torch.ones(()))},
        {**WEIGHTS, "a": WEIGHTS["a"].double()},
        {**WEIGHTS, "b": torch.tensor([0, 1, 2, 3, 5])},
    ],
)
def test_others_have_another(other: dict[str, torch.Tensor]) -> None:
    assert fingerprint(other) != fingerprint(WEIGHTS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.bool])
def test_of_every_type(dtype: torch.dtype) -> None:
    ones = {"a": torch.ones(3, dtype=dtype)}
    assert fingerprint(ones) != fingerprint({"a": torch.tensor([1, 1, 0]).to(dtype)})
