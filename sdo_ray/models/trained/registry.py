"""The kinds of trained parameters, by the names that `model.train` takes.

A kind is a module of this package with what `Kind` lists. Nothing outside this package asks which kind it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from sdo_ray.models.trained import diffit, full, lora

AdapterWriter = Callable[[Mapping[str, torch.Tensor], Path], Path]
"""Writes weights, named as in `trained_parameters`, into a directory as one file, and returns its path."""


class Kind(Protocol):
    """What the module of a kind has. `settings` is the section of `ModelSettings` with the kind's name, or None."""

    def attach(self, components: Mapping[str, object], settings: Any) -> dict[str, torch.nn.Module]:
        """Make trainable, in float32, what this kind trains; the images stay as they were.

        Args:
            components: a frozen pipeline's, or its denoisers alone, by name; on any device, the meta device too.
            settings: the kind's.

        Returns:
            The components in which parameters are trained, by name.

        Raises:
            SettingsError: no layer's name ends with one of the settings' endings.
        """

    def initial(
        self, base: str, dtype: str, settings: Any, seed: int, types: Mapping[str, str] | None = None
    ) -> dict[str, torch.Tensor]:
        """Policy version 0, the base model's images: the same on every machine.

        Args:
            base: the base model's reference.
            dtype: name of the torch type of its weights.
            settings: the kind's.
            seed: fixes what is drawn.
            types: component -> name of its type, where it is another.

        Returns:
            Name -> float32 tensor on the CPU, named as in `trained_parameters`.

        Raises:
            SettingsError: the base cannot be read, or no layer's name ends with one of the settings' endings.
        """

    def merge(self, modules: Mapping[str, torch.nn.Module]) -> None:
        """Bring what was trained into the modules' own weights, as plain diffusers has them: the inverse of `attach`.

        Args:
            modules: what `attach` returned.
        """

    def adapter_writer(self, base: str, settings: Any) -> AdapterWriter | None:
        """What writes the trained weights as a file for `load_lora_weights`; None: only a complete model can have them.

        Raises:
            SettingsError: the base has no denoiser, or its configuration cannot be read.
        """

    def beyond_denoisers(self, settings: Any) -> str | None:
        """The setting, if there is one, by which other parts than the denoisers are trained.

        Their gradient comes from the sampling as a whole, not from the denoiser's kept calls.
        """


KINDS: Mapping[str, Kind] = {
    "lora": lora,
    "diffit": diffit,
    "full": full,
}
"""Value of `model.train` -> its module."""


def merge(modules: Mapping[str, torch.nn.Module]) -> None:
    """Bring into the modules' own weights what any kind has added to them, trained or loaded."""
    for kind in KINDS.values():
        kind.merge(modules)
