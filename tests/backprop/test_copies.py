"""Tensors that are written over after autograd has saved them."""

import pytest
import torch

from sdo_ray.backprop.copies import SavedCopies


def squared_then_zero(x: torch.Tensor) -> torch.Tensor:
    """x^2, made of a tensor that is written over afterwards."""
    y = 1 * x
    z = y * y
    y.zero_()
    return z.sum()


def test_what_is_written_over_keeps_its_gradient() -> None:
    x = torch.tensor([1.0, 3.0], requires_grad=True)
    with SavedCopies():
        z = squared_then_zero(x)
    z.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 6.0]


def test_networks_save_their_own() -> None:
    x = torch.ones(2, requires_grad=True)
    copies = SavedCopies()
    with copies:
        with copies.paused(), copies.paused():
            y = x.exp()
        z = x.exp()
    assert y.grad_fn is not None
    assert z.grad_fn is not None
    assert y.grad_fn._saved_result.data_ptr() == y.data_ptr()  # type: ignore[attr-defined]
    assert z.grad_fn._saved_result.data_ptr() != z.data_ptr()  # type: ignore[attr-defined]


def test_errors_leave_autograd_as_it_was() -> None:
    x = torch.ones(2, requires_grad=True)
    copies = SavedCopies()
    with pytest.raises(ZeroDivisionError), copies, copies.paused():
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squared_then_zero(x).backward()
