"""Checkpoints of a network with LoRA in it, by the names of peft, as one of the network alone.

Hu et al., 2106.09685:  W' = W + s B A,  s = alpha / r, or alpha / sqrt(r) for one that is rank-stabilised (2312.03732).
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_WHOLE, _A, _B = "base_model.model.", ".lora_A.", ".lora_B."


def merged(tensors: Mapping[str, Tensor], lora: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights with their adapters in them, each in the type of the weight, by the network's own names.

    Args:
        tensors: by peft's names, with the adapter's name in them or without.
        lora: `lora_alpha` and, if it is rank-stabilised, `use_rslora`.

    Raises:
        ValueError: an adapter without its other half, or without its weight.
    """
    found = {key.removeprefix(_WHOLE).replace(".base_layer.", "."): tensor for key, tensor in tensors.items()}
    halves: dict[str, dict[str, Tensor]] = {}
    for key in [key for key in found if _A in key or _B in key]:
        half = _A if _A in key else _B
        halves.setdefault(key.partition(half)[0], {})[half] = found.pop(key)
    for layer, pair in halves.items():
        weight = f"{layer}.weight"
        if len(pair) < 2 or weight not in found:
            raise ValueError(
                f"this is no checkpoint with LoRA: of {layer!r} the weight or half of the adapter is missing"
            )
        rank = len(pair[_A])
        scale = lora["lora_alpha"] / (rank**0.5 if lora.get("use_rslora") else rank)
        change = scale * (pair[_B].float() @ pair[_A].float())
        found[weight] = (found[weight].float() + change).to(found[weight].dtype)
    return found
