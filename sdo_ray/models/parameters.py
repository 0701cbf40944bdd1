"""The parameters that a run trains, whichever they are: find them, and set them."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def trained_parameters(modules: Mapping[str, torch.nn.Module]) -> dict[str, torch.nn.Parameter]:
    """Those that require gradients, `{"unet.mid_block...lora_A...": [r, in]}`, in an order that is the same everywhere.

    Args:
        modules: denoisers, and text encoders where they are trained too, by component name.
    """
    return {
        f"{component}.{name}": parameter
        for component, module in modules.items()
        for name, parameter in sorted(module.named_parameters())
        if parameter.requires_grad
    }


def trained_values(modules: Mapping[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    """What `trained_parameters` hold, without a graph."""
    return {name: parameter.detach() for name, parameter in trained_parameters(modules).items()}


@torch.no_grad()
def set_parameters(modules: Mapping[str, torch.nn.Module], weights: Mapping[str, torch.Tensor]) -> None:
    """Copy weights named as in `trained_parameters` into the modules.

    Raises:
        KeyError: if the names differ; both differences are listed.
    """
    parameters = trained_parameters(modules)
    if parameters.keys() != weights.keys():
        missing, unknown = sorted(parameters.keys() - weights.keys()), sorted(weights.keys() - parameters.keys())
        raise KeyError(f"weights do not fit the model: missing {missing[:3]}, unknown {unknown[:3]}")
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])
