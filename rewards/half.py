"""Image gradients in 16 bits, for samplers that compute in 16 bits anyway. Imports no torch."""

import numpy as np

_LARGEST = 15
"""log2 of what the largest value of an image becomes: float16 ends a little above 2**15."""


def to_half(gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale each image's gradient by a power of two, so that float16 holds it.

    Values below 2**-30 of an image's largest lose precision, and those below 2**-40 become 0; all others keep the 11
    bits of float16. What is not finite stays so.

    Args:
        gradient: float32 [B, ...].

    Returns:
        g 2^-e as float16 [B, ...], and e as int16 [B].
    """
    sizes = np.where(np.isfinite(gradient), np.abs(gradient), 0.0)
    largest = np.max(sizes, axis=tuple(range(1, gradient.ndim)), initial=0.0)
    # frexp: largest = m 2^e with m in [0.5, 1)
    exponents = np.where(largest > 0, np.frexp(largest)[1] - _LARGEST, 0).astype(np.int16)
    return np.ldexp(gradient, -_by_image(exponents, gradient)).astype(np.float16), exponents


def from_half(scaled: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """The inverse of `to_half`, float32."""
    gradient: np.ndarray = np.ldexp(scaled.astype(np.float32), _by_image(exponents, scaled))
    return gradient


def _by_image(exponents: np.ndarray, images: np.ndarray) -> np.ndarray:
    return exponents.astype(np.int32).reshape(-1, *[1] * (images.ndim - 1))
