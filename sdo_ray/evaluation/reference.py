"""Feature vectors of real images."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import ray
from PIL import Image, UnidentifiedImageError

from sdo_ray.evaluation.distances import Array
from sdo_ray.evaluation.settings import ReferenceSettings
from sdo_ray.settings import Problem, SettingsError

AT_ONCE = 16
"""Images handed to the feature network in one call."""


def check_reference(settings: ReferenceSettings) -> None:
    """Refuse what cannot be read, looking at the first image.

    Raises:
        SettingsError: no such file or column, nothing in it, or no image.
    """
    try:
        dataset = pyarrow.dataset.dataset(settings.path, format="parquet")
        names = dataset.schema.names
    except (pa.ArrowException, OSError) as error:
        cause = str(error).splitlines()[0]
        got = f"{settings.path!r} cannot be read as parquet: {cause}"
        raise SettingsError(Problem("path", got, fix="give a file or a directory")) from None
    if settings.column not in names:
        got, legal = f"{settings.path!r} has no column {settings.column!r}", f"it has {', '.join(names)}"
        raise SettingsError(Problem("column", got, legal, "name the one with the images"))
    if dataset.count_rows() < 2:
        got = f"{settings.path!r} has {dataset.count_rows()} rows"
        raise SettingsError(Problem("path", got, "a set takes two", "give more images"))
    _open(dataset.head(1, columns=[settings.column])[settings.column][0].as_py(), settings, 0)


def reference_features(settings: ReferenceSettings, seed: int, features: Any) -> Array:
    """Vectors [n, d] of at most `settings.num_images` images, the same ones for a seed.

    Args:
        settings: where they are.
        seed: fixes which are taken.
        features: the `FeatureActor`.

    Raises:
        SettingsError: an image cannot be decoded; the message names its row.
    """
    vectors = [ray.get(features.extract.remote(images)) for images in _batches(settings, seed)]
    return np.concatenate(vectors).astype(np.float64)


def _batches(settings: ReferenceSettings, seed: int) -> Iterator[np.ndarray]:
    """Images of one size each, float32 [b, 3, H, W] in [0, 1]."""
    dataset = pyarrow.dataset.dataset(settings.path, format="parquet")
    count = dataset.count_rows()
    rows = np.sort(np.random.default_rng(seed).permutation(count)[: settings.num_images])
    waiting: dict[tuple[int, int], list[np.ndarray]] = {}
    for first in range(0, len(rows), 256):
        chosen = rows[first : first + 256]
        column = dataset.take(chosen, columns=[settings.column])[settings.column]
        for row, value in zip(chosen, column.to_pylist(), strict=True):
            image = _open(value, settings, int(row))
            group = waiting.setdefault(image.size, [])
            group.append(np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255)
            if len(group) == AT_ONCE:
                yield np.stack(waiting.pop(image.size))
    for group in waiting.values():
        yield np.stack(group)


def _open(value: Any, settings: ReferenceSettings, row: int) -> Image.Image:
    """An image on white, from the bytes of its file."""
    encoded = value.get("bytes") if isinstance(value, dict) else value
    try:
        image = Image.open(io.BytesIO(encoded or b"")).convert("RGBA")
    except (TypeError, UnidentifiedImageError, OSError):
        got = f"row {row} of {settings.column!r} in {settings.path!r} is no image that Pillow reads"
        raise SettingsError(Problem("column", got, fix="remove or mend it")) from None
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
