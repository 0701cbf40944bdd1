"""A LoRA that starts with the weight's own principal part (PiSSA, Meng et al. 2024, arXiv 2404.02948).

A layer's weight W becomes W - s B0 A0 with the adapter s B0 A0 on it, from the r largest singular values of W, so that
the model is the same and what is trained is what matters most in it. Another program has W itself: for it an adapter of
twice the rank holds the difference, s (B A - B0 A0).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sdo_ray.models.trained.lora_settings import LoraSettings
from sdo_ray.settings import Problem, SettingsError

ITERATIONS = 16
"""Of the subspace, which the authors find as good as an exact decomposition (section 4)."""


def split_off(module: torch.nn.Module, adapter: str) -> None:
    """Move the principal part of each adapted layer's weight into its adapter; on the meta device check alone.

    On the CPU, so that it is the same wherever the module is.

    Args:
        module: with PEFT's adapters of this name, float32.

    Raises:
        SettingsError: of `lora.init` or `lora.rank`: a layer is no linear one of float32, or has no such rank.
    """
    from peft.tuners.lora import LoraLayer

    for name, layer in module.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        weight, rank, scale = layer.get_base_layer().weight, layer.r[adapter], layer.scaling[adapter]
        if weight.dim() != 2:
            got = f"got 'pissa', and {name} is a convolution"
            raise SettingsError(
                Problem("lora.init", got, "linear layers' weights are taken apart", "name other targets")
            )
        if weight.dtype != torch.float32:
            got = f"got 'pissa', and {name} is of {str(weight.dtype).removeprefix('torch.')}, where what is left of it"
            fix = "choose model.dtype: float32, or another start"
            raise SettingsError(Problem("lora.init", f"{got} would be rounded: another model", fix=fix))
        if rank > min(weight.shape):
            got = f"{name}, of {' x '.join(map(str, weight.shape))} weights, has no rank {rank}"
            raise SettingsError(Problem("lora.rank", got, fix="choose a smaller one, or a lora.rank_pattern for it"))
        if weight.is_meta:
            continue
        down, up = principal(weight.detach().cpu(), rank, scale)
        with torch.no_grad():
            layer.lora_A[adapter].weight.copy_(down)
            layer.lora_B[adapter].weight.copy_(up)
            weight -= (scale * up @ down).to(weight.device)  # made on the CPU: a GPU may multiply in TF32


def principal(weight: torch.Tensor, rank: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A0 [r, in] and B0 [out, r] of a weight [out, in] on the CPU, scale B0 A0 = U_r S_r V_r^T; always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        left, values, right = torch.svd_lowrank(weight, rank, niter=ITERATIONS)
    root = (values / scale).sqrt()
    return root[:, None] * right.T, left * root


def from_the_base(weights: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The adapter of twice the rank that does to the base what `weights` do to what was left of it.

    Args:
        weights: A [r, in] and B [out, r] by name, as in `trained_parameters`.
        start: what they started with.

    Returns:
        [A; A0] and [B, -B0] by the same names.
    """
    return {
        name: torch.cat([now, start[name]]) if ".lora_A." in name else torch.cat([now, -start[name]], dim=1)
        for name, now in weights.items()
    }


def doubled(settings: LoraSettings) -> LoraSettings:
    """Settings of twice the rank and the same scale, with which `from_the_base` is a plain adapter."""
    grown = 2**0.5 if settings.rslora else 2  # the scale's own dependence on the rank
    return settings.model_copy(
        update={
            "init": "default",
            "rank": 2 * settings.rank,
            "alpha": grown * settings.alpha,
            "rank_pattern": {ending: 2 * rank for ending, rank in settings.rank_pattern.items()},
            "alpha_pattern": {ending: grown * alpha for ending, alpha in settings.alpha_pattern.items()},
        }
    )
