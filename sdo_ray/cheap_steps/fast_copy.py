"""A copy of a denoiser that steps without a graph run on: what is trained merged into it, in another type, quantised.

The kept step runs on the denoiser itself. The copy follows the policy: before each call of the pipeline, layers whose
trained parameters have changed are merged anew.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

from sdo_ray.backprop.caches import hooks_of
from sdo_ray.backprop.patches import attention_processors
from sdo_ray.backprop.repeated import check_can_be_repeated
from sdo_ray.cheap_steps.rounded import round_weights
from sdo_ray.cheap_steps.settings import CopySettings
from sdo_ray.cheap_steps.small import SmallDenoiser
from sdo_ray.cheap_steps.typed_call import take_any_type, typed_call
from sdo_ray.models.quantised import is_quantised
from sdo_ray.models.trained.registry import merge
from sdo_ray.settings import Problem, SettingsError


class FastCopy:
    """Of one denoiser.

    Args:
        name: the denoiser's component name.
        denoiser: with what is trained; it is not changed.
        settings: what the copy is like.

    Attributes:
        module: the copy.
        dtype: of its weights.
        first: share of the steps that a smaller model makes, 0 without one.

    Raises:
        SettingsError: the denoiser has hooks that a copy would share with it, or quantised weights; torchao is needed
            and not there; see `SmallDenoiser`.
    """

    def __init__(self, name: str, denoiser: torch.nn.Module, settings: CopySettings) -> None:
        _check_has_no_hooks(name, denoiser)
        _check_is_plain(name, denoiser)
        self._name, self._settings, self._denoiser = name, settings, denoiser
        self._processors = attention_processors(denoiser)
        self._dtype = next(p.dtype for p in denoiser.parameters() if p.is_floating_point())
        self.dtype = self._dtype if settings.dtype is None else getattr(torch, settings.dtype)
        self.module = copy.deepcopy(denoiser)
        merge({name: self.module})
        # Not diffusers' own `to`, which warns of parts that may be kept in float32.
        torch.nn.Module.to(self.module.requires_grad_(False), self.dtype)
        take_any_type(self.module)
        if settings.quantize is not None:
            round_weights(self.module, settings.quantize, settings.low_rank)
        self.first, self._small = 0.0, None
        if settings.small is not None:
            self.first, self._small = settings.until, SmallDenoiser(name, denoiser, settings.small, self.dtype)
        self._layers = list(_trained_layers(denoiser))
        self._state = self._versions()

    def follow(self) -> None:
        """Merge what is trained as it is now, if it has changed."""
        if (state := self._versions()) == self._state:
            return
        for path, layer in self._layers:
            self._renew(path, layer)
        self._state = state

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the denoiser returns, by the copy, of the denoiser's own type.

        Raises:
            TraceError: the pipeline has put other attention processors into its denoiser for its call, or calls it with
                an object that it goes on to change.
        """
        fix = "leave sampling.fast_copy out"
        check_can_be_repeated("sampling.fast_copy", self._name, (args, kwargs), self._processors, self._denoiser, fix)
        return typed_call(self.module, self.dtype, self._dtype, args, kwargs)

    def small(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same by the smaller model, which there is where `first` is not 0."""
        assert self._small is not None
        return self._small(args, kwargs)

    @property
    def modules(self) -> list[torch.nn.Module]:
        """The networks that it has."""
        return [self.module] if self._small is None else [self.module, self._small.module]

    def _versions(self) -> list[tuple[int, int]]:
        """Of the trained parameters: torch counts what is written into a tensor."""
        return [(p.data_ptr(), p._version) for p in self._denoiser.parameters() if p.requires_grad]

    def _renew(self, path: str, layer: torch.nn.Module) -> None:
        own = self.module.get_submodule(path)
        if next(layer.children(), None) is not None and not _is_adapted(layer):
            for name, parameter in layer.named_parameters(recurse=False):
                own.get_parameter(name).data.copy_(parameter.data)
            return
        holder = torch.nn.ModuleDict({"layer": copy.deepcopy(layer)})
        merge({self._name: holder})
        merged = holder["layer"].requires_grad_(False).to(self.dtype)
        if self._settings.quantize is None:
            own.load_state_dict(merged.state_dict())
        else:
            round_weights(merged, self._settings.quantize, self._settings.low_rank, path)
            self.module.set_submodule(path, merged)
            take_any_type(merged)


def _trained_layers(denoiser: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """The layers that have trained parameters: those with an adapter as a whole, else whatever holds one itself."""
    inside: tuple[str, ...] = ()
    for path, module in denoiser.named_modules():
        if path.startswith(inside) and inside:
            continue
        if _is_adapted(module):
            inside += (f"{path}.",)
            if any(p.requires_grad for p in module.parameters()):
                yield path, module
        elif any(p.requires_grad for p in module.parameters(recurse=False)):
            yield path, module


def _is_adapted(module: torch.nn.Module) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return isinstance(module, BaseTunerLayer)


def _check_has_no_hooks(name: str, denoiser: torch.nn.Module) -> None:
    hooked = {id(module): type(hook).__name__ for module, hook in hooks_of(denoiser)}
    for path, module in denoiser.named_modules():
        found = [hooked.get(id(module)), *(kind for kind in ("forward", "_hf_hook") if kind in vars(module))]
        if any(found):
            kind = next(filter(None, found))
            got = f"the {name} has {kind!r} on its module {path or 'itself'!r}: offloading, a cache or another hook"
            raise SettingsError(Problem("", got, "a copy would share it", "leave the copy out, or the hook"))


def _check_is_plain(name: str, denoiser: torch.nn.Module) -> None:
    """Of rounded weights a merged copy would be rounded again, after every update."""
    if any(is_quantised(p) for p in denoiser.parameters()):
        got = f"the {name} has quantised weights already"
        fix = "leave the copy out, or model.quantize and quantise the copy"
        raise SettingsError(Problem("", got, "what is trained is merged into a copy's weights", fix))
