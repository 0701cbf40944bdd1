"""What is said of the layers that a run trains."""

from pathlib import Path

import torch

from sdo_ray.models.bound import bound_layers
from sdo_ray.models.policy import initial_policy
from sdo_ray.models.settings import ModelSettings


def test_layers_are_counted_by_the_ends_of_their_names() -> None:
    names = [f"unet.blocks.{i}.attn.{layer}.lora_{x}.weight" for i in range(3) for layer in "qk" for x in "AB"]
    weights = {name: torch.zeros(2, 5) for name in [*names, "unet.blocks.0.attn.to_out.0.lora_A.weight"]}
    assert bound_layers(weights) == "130 weights in 7 layers: q 3, k 3, to_out.0 1"
    many = {f"unet.layer{i}.weight": torch.zeros(1) for i in range(10)} | {"unet.layer0.bias": torch.zeros(1)}
    assert bound_layers(many).startswith("11 weights in 10 layers: layer")
    assert bound_layers(many).endswith(" and 2 others")


def test_of_a_real_lora(tiny_base: Path) -> None:
    model = ModelSettings(base=str(tiny_base), lora={"targets": ["to_q", "to_out.0"]})
    said = bound_layers(initial_policy(model, 0))
    assert ": to_q " in said or ", to_q " in said
    assert "to_out.0 " in said
