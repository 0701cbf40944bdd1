"""What a page has inside itself, so that it needs nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import io
from importlib import resources

from sdo_ray.media.picture import open_image


def packaged(name: str) -> str:
    """The text of a file beside this one."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def policy_hash(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def data_uri(encoded: bytes, size: int) -> str:
    """An image's file as WebP with no side longer than `size`; small ones without loss."""
    image = open_image(encoded)
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=85, method=6, lossless=max(image.size) <= 96)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
