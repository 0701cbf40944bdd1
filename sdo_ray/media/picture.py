"""A picture of a sample, whatever it is.

image  itself;  video  frames side by side;  audio  its spectrogram;  other tensors  lines, or shades of grey
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, ImageDraw

from rewards.frames import Frames
from rewards.modality import Modality

STRIP = Frames(6)
"""Frames of a video that are shown."""
HEIGHT, WIDTH = 128, 256
"""Pixels of pictures of what has none."""
LOUDEST, RANGE = 0.0, 80.0
"""Decibels of what is white in a spectrogram, and from there to black; fixed, so that two of them can be compared."""
LINES = 8
"""Rows of numbers that are drawn as lines; more are shades of grey."""


def picture(sample: torch.Tensor, modality: Modality) -> Image.Image:
    """The picture.

    Args:
        sample: [3, H, W], [F, 3, H, W], [C, T] or any other shape, on any device.
        modality: which.
    """
    x = sample.detach().float().cpu()
    match modality:
        case "image":
            return _pixels(x)
        case "video":
            return _pixels(torch.cat([x[f] for f in STRIP.places(len(x))], -1))
        case "audio":
            return _spectrogram(x)
    return _lines_or_greys(x)


def to_png(image: Image.Image) -> bytes:
    """The PNG file of a picture."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def open_image(encoded: bytes) -> Image.Image:
    """A picture from the bytes of its file."""
    return Image.open(io.BytesIO(encoded)).convert("RGB")


def _pixels(x: torch.Tensor) -> Image.Image:
    array = (x.permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    return Image.fromarray(array)


def _spectrogram(x: torch.Tensor) -> Image.Image:
    """Power in decibels of the mean of all channels, low frequencies at the bottom; 0 dB is a sine of amplitude 1."""
    mono = x.mean(0)
    size = min(2 * HEIGHT, len(mono) // 2 * 2)
    if size < 4:
        return _greys(x)
    window = torch.hann_window(size)
    hop = max(1, len(mono) // WIDTH)
    spectrum = torch.stft(mono, size, hop, window=window, return_complex=True, pad_mode="constant")
    decibels = 20 * torch.log10((2 * spectrum.abs() / window.sum()).clamp(min=1e-10))
    return _greys(((decibels - LOUDEST) / RANGE + 1).clamp(0, 1).flip(0), scaled=True)


def _lines_or_greys(x: torch.Tensor) -> Image.Image:
    rows = x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
    return _lines(rows) if len(rows) <= LINES and rows.shape[1] > 1 else _greys(rows)


def _lines(rows: torch.Tensor) -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, y = ImageDraw.Draw(image), 1 - _scaled(rows)
    steps = np.linspace(0, WIDTH - 1, rows.shape[1])
    for number, row in enumerate(y.tolist()):
        points = [(x, 2 + v * (HEIGHT - 5)) for x, v in zip(steps, row, strict=True)]
        draw.line(points, f"hsl({number * 360 // LINES}, 90%, 35%)", width=2)
    return image


def _greys(rows: torch.Tensor, scaled: bool = False) -> Image.Image:
    values = rows if scaled else _scaled(rows)
    image = Image.fromarray((values * 255).round().to(torch.uint8).numpy())
    return image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR).convert("RGB")


def _scaled(x: torch.Tensor) -> torch.Tensor:
    """Values from 0, the least, to 1; what is not finite is 0."""
    finite = x[x.isfinite()]
    low, high = (finite.min(), finite.max()) if len(finite) else (torch.tensor(0.0), torch.tensor(1.0))
    return ((x - low) / (high - low).clamp(min=1e-12)).nan_to_num(0.0, 0.0, 0.0).clamp(0, 1)
