"""Heads of several linear layers with nothing between them: one affine map, composed once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewards.towers.checkpoint import check_keys


@dataclass(frozen=True)
class AffineHead:
    """x -> <weight, x> + bias."""

    weight: Tensor
    """[D], float64."""

    bias: Tensor
    """[], float64."""

    def __call__(self, x: Tensor) -> Tensor:
        """[B] of [B, D], in the type of x."""
        if x.shape[-1] != len(self.weight):
            raise ValueError(f"this head is for {len(self.weight)} features, and its network gives {x.shape[-1]}")
        return x @ self.weight.to(x) + self.bias.to(x)


def compose(tensors: Mapping[str, Tensor], layers: Sequence[str], what: str) -> AffineHead:
    """The linear layers `layers`, each with `.weight` and `.bias`, as one; dropouts between them do nothing here.

    Args:
        tensors: of the checkpoint, which holds nothing else.
        layers: their names, in order; "" for a checkpoint that is one layer itself.
        what: the head's name, for messages.

    Raises:
        ValueError: other keys, or layers that do not fit each other.
    """
    names = [tuple(f"{layer}.{part}".lstrip(".") for part in ("weight", "bias")) for layer in layers]
    check_keys(tensors.keys(), [key for pair in names for key in pair], what)
    first, *rest = [(tensors[weight].double(), tensors[bias].double()) for weight, bias in names]
    weight, bias = first
    for further, offset in rest:
        if further.shape[1:] != weight.shape[:1]:
            raise ValueError(
                f"this is no checkpoint of {what}: {list(further.shape)} does not follow {list(weight.shape)}"
            )
        weight, bias = further @ weight, further @ bias + offset
    if weight.shape[0] != 1 or bias.shape != (1,):
        raise ValueError(f"this is no checkpoint of {what}: it gives {len(weight)} numbers, not one score")
    return AffineHead(weight[0], torch.squeeze(bias))
