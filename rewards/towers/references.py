"""Images that rewards compare with, from files."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def image_files(path: Path) -> list[Path]:
    """The file itself, or the images of a folder, by name.

    Raises:
        ValueError: there are none.
    """
    path = path.expanduser()
    found = sorted(file for file in path.glob("*") if file.suffix.lower() in _SUFFIXES) if path.is_dir() else [path]
    if not found or not found[0].is_file():
        raise ValueError(f"there are no images at {str(path)!r}; give the path of an image, or of a folder of them")
    return found


def read_image(path: Path) -> Tensor:
    """An image, float32 [1, 3, H, W] in [0, 1]; transparency becomes white.

    Raises:
        ValueError: it cannot be read as an image.
    """
    pixels = torch.from_numpy(np.array(open_image(path)))
    return pixels.permute(2, 0, 1)[None].float() / 255


def read_square(path: Path, size: int) -> Tensor:
    """The square middle of an image, float32 [1, 3, size, size] in [0, 1], as Pillow resizes it.

    Raises:
        ValueError: as `read_image`.
    """
    flat = open_image(path)
    side = min(flat.size)
    left, top = (flat.width - side) // 2, (flat.height - side) // 2
    box = (left, top, left + side, top + side)
    pixels = np.array(flat.resize((size, size), Image.Resampling.BICUBIC, box))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def open_image(path: Path) -> Image.Image:
    """An image of Pillow's, in RGB, on white where it is transparent.

    Raises:
        ValueError: it cannot be read as an image.
    """
    try:
        with Image.open(path.expanduser()) as file:
            opened = file.convert("RGBA")
    except FileNotFoundError:
        raise ValueError(f"there is no file {str(path)!r}; give the path of an image") from None
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as an image: {error}") from None
    white = Image.new("RGBA", opened.size, "white")
    return Image.alpha_composite(white, opened).convert("RGB")
