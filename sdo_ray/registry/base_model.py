"""What a base model is, whatever of it a machine has."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sdo_ray.models.load import resolve
from sdo_ray.tracking.provenance import fingerprint


def base_model_sha256(reference: str) -> str:
    """Equal for equal models: of the files of a directory, and of a hub model of its id and commit.

    What a machine's cache has of a hub model differs from day to day, and a head node may never load its weights.

    Args:
        reference: with the commit, see `sdo_ray.models.files.pinned`.
    """
    location = Path(resolve(reference))
    return fingerprint(str(location)) if location.is_dir() else hashlib.sha256(reference.encode()).hexdigest()
