"""What a page has inside itself, so that it needs nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import io
from importlib import resources

from PIL import Image, ImageSequence

from sdo_ray.media.files import animation


def packaged(name: str) -> str:
    """The text of a file beside this one."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def policy_hash(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def data_uri(encoded: bytes, size: int) -> str:
    """The file of an image or animation as WebP with no side longer than `size`; small images without loss."""
    frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(Image.open(io.BytesIO(encoded)))]
    for frame in frames:
        frame.thumbnail((size, size))
    buffer = io.BytesIO()
    if len(frames) == 1:
        frames[0].save(buffer, format="WEBP", quality=85, method=6, lossless=max(frames[0].size) <= 96)
    content = buffer.getvalue() or animation(frames)
    return "data:image/webp;base64," + base64.b64encode(content).decode()


def sound_uri(encoded: bytes | None) -> str | None:
    """The file of a sound, a WAV; None of others."""
    if encoded is None or encoded[8:12] != b"WAVE":
        return None
    return "data:audio/wav;base64," + base64.b64encode(encoded).decode()
