"""A network with the weights of its blocks rounded to few bits.

Notation: W a layer's weight as a matrix, a row for each output
    Q(W) = s round(W / s)    s = max |W| / (2^(b-1) - 1) over each `GROUP` weights of a row, b bits
    W ~ L + Q(W - L)         L of rank r: what is largest in W, outliers among it, and what an adapter has added, is
                             not rounded (the low-rank branch of SVDQuant, arXiv 2411.05007, on weights alone)

Two kinds of layers stay as they are, few weights that much depends on. Those outside lists of blocks: what embeds time,
prompt and latents, and the last layer (temporal features: TFMQ-DM, arXiv 2311.16503). And a UNet's shortcuts, by which
skip connections come in (Q-Diffusion, arXiv 2302.04304, rounds them apart), and the projections into and out of its
transformers.
"""

from __future__ import annotations

import re

import torch
from torch import nn
from torch.nn.utils import parametrize

from sdo_ray.cheap_steps.low_rank import low_rank
from sdo_ray.cheap_steps.settings import Quantize
from sdo_ray.models.quantised import quantise

GROUP = 32
"""Weights of a row that share a scale."""
KEPT = re.compile(r"\.(conv_shortcut|attentions\.\d+\.proj_(in|out))$")
"""Layers of a UNet that are not rounded."""


def round_weights(module: nn.Module, to: Quantize, rank: int, path: str = "") -> None:
    """Round the weights of a network's blocks, in place.

    Args:
        module: frozen; all of the network, or a part of it.
        to: `int8`, `int4`: of linear layers and convolutions, brought back to the type they had at each call, so that
            they take less memory, and no less time. `int8-dynamic`: of linear layers, and what they are given too, by a
            scale for each of its rows, by torchao.
        rank: r, 0 or more; 0 with `int8-dynamic`.
        path: the module's name in the network.

    Raises:
        SettingsError: torchao is needed and not installed.
    """
    for name, layer in list(module.named_modules()):
        own = f"{path}.{name}".strip(".")
        if not any(part.isdigit() for part in own.split(".")) or KEPT.search(own):
            continue
        if to == "int8-dynamic":
            if isinstance(layer, nn.Linear):
                quantise(layer, to)
        elif isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            rounding = _Rounding(8 if to == "int8" else 4, rank, layer.weight)
            parametrize.register_parametrization(layer, "weight", rounding)


class _Rounding(nn.Module):
    """How a layer keeps its weight: `right_inverse` makes what is stored of it, `forward` the weight of that.

    Args:
        bits: b, 8 or 4.
        rank: r.
        weight: of the layer.
    """

    def __init__(self, bits: int, rank: int, weight: torch.Tensor) -> None:
        super().__init__()
        self._bits, self._rank, self._shape, self._columns = bits, rank, weight.shape, weight[0].numel()

    def right_inverse(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Numbers, two of four bits in a byte; scales [rows, groups]; the factors of L, [rows, r] and [r, columns]."""
        matrix = weight.detach().flatten(1).float()
        up, down = low_rank(matrix, self._rank)
        rest = nn.functional.pad(matrix - up @ down, (0, -self._columns % GROUP)).unflatten(1, (-1, GROUP))
        largest = 2 ** (self._bits - 1) - 1
        scale = (rest.abs().amax(-1, keepdim=True) / largest).to(weight.dtype).float()
        numbers = (rest / scale.clamp_min(1e-12)).round().clamp(-largest, largest).to(torch.int8).flatten(1)
        if self._bits == 4:
            even, odd = (numbers[:, i::2] + 8 for i in (0, 1))
            numbers = (even + 16 * odd.to(torch.uint8)).to(torch.uint8)
        return numbers, *(x.to(weight.dtype) for x in (scale.squeeze(-1), up, down))

    def forward(self, numbers: torch.Tensor, scale: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        """The weight, of the type of the scales."""
        if self._bits == 4:
            numbers = torch.stack([numbers % 16, numbers // 16], -1).flatten(1).to(torch.int8) - 8
        rest = numbers.unflatten(1, (-1, GROUP)) * scale.unsqueeze(-1)
        return torch.addmm(rest.flatten(1)[:, : self._columns], up, down).view(self._shape)
