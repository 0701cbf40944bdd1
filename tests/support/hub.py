"""A model of the hub as it lies in this machine's cache after a download, without a network."""

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached_hub_model(base: Path, cache: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a pipeline into a cache of its own, as the commit `COMMIT` of a hub model, and take the network away.

    Args:
        base: its directory, in diffusers format.
        cache: where the cache is to be.
        name: hub id, `org/name`.
        monkeypatch: makes the hub's client use it.
    """
    model = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(base, model / "snapshots" / COMMIT)
    (model / "refs").mkdir()
    (model / "refs/main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
