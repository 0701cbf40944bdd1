"""Gradients in 16 bits."""

import numpy as np
import pytest

from rewards.half import from_half, to_half


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e6, 1e30])
def test_each_image_keeps_eleven_bits_whatever_its_size(size: float) -> None:
    draws = np.random.default_rng(0)
    gradient = (draws.standard_normal((3, 3, 8, 8)) * size * np.array([1.0, 1e-5, 1e5]).reshape(3, 1, 1, 1)).astype(
        "f4"
    )
    scaled, exponents = to_half(gradient)
    assert (scaled.dtype, exponents.dtype) == (np.float16, np.int16)
    again = from_half(scaled, exponents)
    assert again.dtype == np.float32
    np.testing.assert_allclose(again, gradient, rtol=2.0**-11)


def test_numbers_of_eleven_bits_are_kept_to_the_bit_and_zero_and_not_finite_as_they_are() -> None:
    gradient = np.array([[1.5, -0.375, 0.0], [0.0, 0.0, 0.0], [np.inf, np.nan, -3e-7], [65504.0, 1e-3, -0.0]], "f4")
    gradient = gradient.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(from_half(*to_half(gradient)), gradient)
    assert from_half(*to_half(np.zeros((0, 3), "f4"))).shape == (0, 3)
