"""What names a base model: `BASE`, `BASE@REVISION`, `BASE#VARIANT` or `BASE@REVISION#VARIANT`, `!MODULE:CLASS` behind.

A revision is a branch, tag or commit of a hub model. A variant is the middle of its weights' file names: `fp16` for
`diffusion_pytorch_model.fp16.safetensors`. `!package.module:Class` is a pipeline of the user's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Reference:
    """A base model's reference, in parts."""

    base: str
    """`zoo://NAME`, a directory, or a hub id."""
    revision: str | None = None
    variant: str | None = None
    pipeline: str | None = None
    """Import path of its class, where that is none of diffusers."""

    @property
    def of_configurations(self) -> dict[str, str]:
        """Keyword arguments for diffusers and transformers to read its configurations."""
        return {} if self.revision is None else {"revision": self.revision}

    @property
    def of_weights(self) -> dict[str, str]:
        """The same to read its weights."""
        return self.of_configurations | ({} if self.variant is None else {"variant": self.variant})

    def __str__(self) -> str:
        """As `parse` reads it."""
        revision = "" if self.revision is None else f"@{self.revision}"
        variant = "" if self.variant is None else f"#{self.variant}"
        return self.base + revision + variant + ("" if self.pipeline is None else f"!{self.pipeline}")


def parse(reference: str) -> Reference:
    """The parts of a reference; a directory may have @, # and ! in its name."""
    if _is_directory(reference):
        return Reference(reference)
    named, _, pipeline = reference.rpartition("!")
    return replace(_parse(named), pipeline=pipeline) if named and ":" in pipeline else _parse(reference)


def _parse(reference: str) -> Reference:
    if _is_directory(reference):
        return Reference(reference)
    directory, _, variant = reference.rpartition("#")
    if _is_directory(directory):
        return Reference(directory, variant=variant or None)
    whole, _, variant = reference.partition("#")
    base, _, revision = whole.partition("@")
    return Reference(base, revision or None, variant or None)


def _is_directory(path: str) -> bool:
    return path != "" and "://" not in path and Path(path).expanduser().is_dir()
