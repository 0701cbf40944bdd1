"""Models that come with the package, so that everything runs offline: `load("emoji")`, `zoo://emoji` in settings.

Importing this module is cheap; torch and diffusers are imported when a model is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

__all__ = ["available", "directory", "load"]

_ROOT = Path(__file__).parent


def available() -> tuple[str, ...]:
    """Names that `load` takes, sorted."""
    return tuple(sorted(index.parent.name for index in _ROOT.glob("*/model_index.json")))


def directory(name: str) -> Path:
    """Where the model's own weights and configurations are, in diffusers format; `name` is one of `available()`."""
    return _ROOT / name


def load(name: str) -> StableDiffusionPipeline:
    """The embedded model `name` as a stock diffusers pipeline, complete with its text encoder, in float32 on the CPU.

    Its parts are plain diffusers and transformers classes, so `pipe.save_pretrained(directory)` writes a directory that
    `StableDiffusionPipeline.from_pretrained(directory)` loads without this package.

    Args:
        name: one of `available()`, without the `zoo://`.

    Raises:
        ValueError: no model has this name; the message lists those that exist.
        ModuleNotFoundError: the package that brings the text encoder is not installed; the message says how.
    """
    if name not in available():
        raise ValueError(f"zoo: no model is named {name!r}; there are: {', '.join(available())}")

    import torch
    from diffusers import StableDiffusionPipeline

    from sdo_ray.zoo.text import load_text

    tokenizer, text_encoder = load_text()
    # The two parts that the directory leaves out, because a package brings them, are handed over; the rest is read.
    return StableDiffusionPipeline.from_pretrained(
        _ROOT / name,
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
    )
