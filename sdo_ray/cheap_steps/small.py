"""The first steps by a smaller model of the same latents and prompts (T-Stitch, arXiv 2402.14167)."""

from __future__ import annotations

from typing import Any

import torch

from sdo_ray.cheap_steps.typed_call import take_any_type, typed_call
from sdo_ray.models.load import load_pipeline
from sdo_ray.settings import Problem, SettingsError

MATCHED = ("in_channels", "out_channels", "cross_attention_dim", "joint_attention_dim", "caption_channels", "text_dim")
"""What both denoisers' configurations have to agree on, where both have it."""


class SmallDenoiser:
    """Stands in for a denoiser.

    Args:
        name: the denoiser's component name.
        denoiser: for which it stands in.
        reference: of the smaller model, whose component of this name is taken.
        dtype: of its weights.

    Raises:
        SettingsError: it cannot be loaded, has no such component, or one that takes or gives something else.
    """

    def __init__(self, name: str, denoiser: torch.nn.Module, reference: str, dtype: torch.dtype) -> None:
        own = next(p for p in denoiser.parameters() if p.is_floating_point())
        loaded = load_pipeline(reference, str(dtype).removeprefix("torch."), str(own.device))
        module = loaded.components.get(name)
        if not isinstance(module, torch.nn.Module):
            got = f"{reference!r} is a {type(loaded).__name__}, which has no {name}"
            raise SettingsError(Problem("small", got, fix="name a model of the same kind"))
        wanted, given = (dict(getattr(network, "config", {})) for network in (denoiser, module))
        for key in MATCHED:
            if key in wanted and key in given and wanted[key] != given[key]:
                got = f"the {name} of {reference!r} has {key} = {given[key]}, and that of the model {wanted[key]}"
                raise SettingsError(Problem("small", got, fix="name a model of the same latents and prompts"))
        take_any_type(module)
        self.module, self._dtype, self._own = module, dtype, own.dtype

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What it returns, of the denoiser's type."""
        return typed_call(self.module, self._dtype, self._own, args, kwargs)
