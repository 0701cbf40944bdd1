"""Packages that need not be installed, where they are: what they switch on is let through or refused by name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sdo_ray.backprop import TraceError, differentiable_sample, make_plan

from .tiny import gradients, seeded, stable_diffusion

N = 4


def gradient(switch_on: Callable[[Any], Any]) -> torch.Tensor:
    pipe = stable_diffusion()
    switch_on(pipe)
    call = {"prompt": "a cat", "guidance_scale": 3.0, "num_inference_steps": N, "generator": seeded(1)}
    images = differentiable_sample(pipe, make_plan("sdo", N, draw="fixed", at=[2]), **call)
    return torch.cat([g.flatten() for g in gradients(pipe, images)])


def quantised(config: Any) -> Callable[[Any], None]:
    from torchao.quantization import quantize_

    def is_frozen_linear(module: torch.nn.Module, name: str) -> bool:
        return isinstance(module, torch.nn.Linear) and "lora" not in name

    return lambda pipe: quantize_(pipe.unet, config, filter_fn=is_frozen_linear)


def test_torchao_weights_are_let_through_and_activations_refused() -> None:
    pytest.importorskip("torchao")
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig

    plain, rounded = gradient(lambda _: None), gradient(quantised(Int8WeightOnlyConfig()))
    assert 0.999 < torch.nn.functional.cosine_similarity(plain, rounded, dim=0) < 1
    with pytest.raises(TraceError, match="Int8Tensor with act_quant_kwargs"):
        gradient(quantised(Int8DynamicActivationInt8WeightConfig()))


def test_the_package_deepcache_is_refused() -> None:
    helper = pytest.importorskip("DeepCache").DeepCacheSDHelper

    def enable(pipe: Any) -> None:
        made = helper(pipe=pipe)
        made.set_params(cache_interval=3, cache_branch_id=0)
        made.enable()

    with pytest.raises(TraceError, match="a cache of DeepCache"):
        gradient(enable)
