"""Captioned images read from a parquet file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from sdo_ray.zoo.settings import DataSettings


@dataclass(frozen=True)
class Captioned:
    """Images and what they show, row by row."""

    images: Tensor
    """uint8 [n, 3, size, size]; transparency lies on white."""
    captions: tuple[tuple[str, ...], ...]
    """One or more captions of each of the n rows."""


def read_captioned(settings: DataSettings) -> Captioned:
    """Reads and decodes the whole file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, an image cannot be decoded, or a row has no caption; the message names it.
    """
    if not Path(settings.path).is_file():
        raise FileNotFoundError(
            f"data.path: no file at {settings.path}; give a parquet file of images and captions. A relative path "
            "starts at the directory of the settings file."
        )
    columns = pq.read_schema(settings.path).names
    for field, column in (("image", settings.image), ("caption", settings.caption)):
        if column not in columns:
            raise ValueError(f"data.{field}: got {column!r}; {settings.path} has the columns {', '.join(columns)}")
    table = pq.read_table(settings.path, columns=[settings.image, settings.caption])
    if table.num_rows == 0:
        raise ValueError(f"data.path: {settings.path} has no rows")
    images = [_image(value, row, settings) for row, value in enumerate(table[settings.image].to_pylist())]
    captions = [_captions(value, row, settings) for row, value in enumerate(table[settings.caption].to_pylist())]
    return Captioned(torch.stack(images), tuple(captions))


def _image(value: bytes | dict[str, bytes] | None, row: int, settings: DataSettings) -> Tensor:
    encoded = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(encoded, bytes):
        raise ValueError(f"data.image: row {row} of {settings.path} holds {type(encoded).__name__}; legal is bytes")
    try:
        image = Image.open(io.BytesIO(encoded)).convert("RGBA")
    except UnidentifiedImageError as error:
        raise ValueError(f"data.image: row {row} of {settings.path} is not an image that Pillow reads") from error
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image).convert("RGB")
    if image.size != (settings.size, settings.size):
        image = image.resize((settings.size, settings.size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _captions(value: str | list[str] | None, row: int, settings: DataSettings) -> tuple[str, ...]:
    captions = (value,) if isinstance(value, str) else tuple(value or ())
    if not captions or not all(isinstance(caption, str) and caption.strip() for caption in captions):
        raise ValueError(
            f"data.caption: row {row} of {settings.path} holds {value!r}; legal is text, or a list of one or more texts"
        )
    return captions
