"""Which layers what is trained is bound to, in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import torch

SHOWN = 8
"""Kinds of layers that are named."""

_OWN = re.compile(r"(\.lora_.*|\.(weight|bias))$")


def bound_layers(weights: Mapping[str, torch.Tensor]) -> str:
    """Such as `2,304 weights in 12 layers: to_q 6, to_out.0 6`.

    Args:
        weights: what is trained, as of `initial_policy`.
    """
    layers = list(dict.fromkeys(_OWN.sub("", name) for name in weights))
    kinds = Counter(kind_of_layer(layer) for layer in layers).most_common()
    named = ", ".join(f"{kind} {count}" for kind, count in kinds[:SHOWN])
    others = sum(count for _, count in kinds[SHOWN:])
    size = sum(tensor.numel() for tensor in weights.values())
    return f"{size:,} weights in {len(layers):,} layers: {named}" + (f" and {others} others" if others else "")


def kind_of_layer(layer: str) -> str:
    """The end of a layer's name, from the last part on that is no number."""
    parts = layer.split(".")
    last = max((i for i, part in enumerate(parts) if not part.isdigit()), default=0)
    return ".".join(parts[last:])
