"""A file of a sample that plays it, or holds its numbers."""

from __future__ import annotations

import io
import wave

import numpy as np
import torch
from PIL import Image

from rewards.modality import Modality
from sdo_ray.media.picture import picture, to_png

FRAME_RATE = 8
"""Frames a second that videos are shown at."""
SUFFIXES: dict[Modality, str] = {"image": ".png", "video": ".webp", "audio": ".wav", "any": ".npy"}
"""What files of a modality are called."""


def to_file(sample: torch.Tensor, modality: Modality, sampling_rate: int | None = None) -> bytes:
    """The bytes of a PNG, an animated WebP, a 16-bit WAV or a NumPy file.

    Args:
        sample: [3, H, W], [F, 3, H, W], [C, T] or any other shape, on any device.
        modality: which.
        sampling_rate: of audio, in Hz.
    """
    x = sample.detach().float().cpu()
    match modality:
        case "image":
            return to_png(picture(x, "image"))
        case "video":
            return animation([picture(frame, "image") for frame in x])
        case "audio":
            assert sampling_rate is not None
            return _wav(x, sampling_rate)
    buffer = io.BytesIO()
    np.save(buffer, x.numpy(), allow_pickle=False)
    return buffer.getvalue()


def animation(frames: list[Image.Image]) -> bytes:
    """An animated WebP that goes round and round."""
    buffer = io.BytesIO()
    first, *others = frames
    first.save(
        buffer, "WEBP", save_all=True, append_images=others, duration=1000 // FRAME_RATE, loop=0, quality=90, method=2
    )
    return buffer.getvalue()


def _wav(x: torch.Tensor, sampling_rate: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(len(x))
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes(
            (x.nan_to_num(0.0).clamp(-1, 1).T * 32767).round().to(torch.int16).contiguous().numpy().tobytes()
        )
    return buffer.getvalue()
