"""A tiny Stable Diffusion XL with random weights, and a LoRA."""

from typing import Any

import torch

from tests.backprop.matrix.assemble import assemble
from tests.backprop.matrix.cases import CASES
from tests.backprop.matrix.check import adapt


def sdxl(dtype: torch.dtype, **vae: Any) -> Any:
    """The pipeline in one type; `vae` changes the configuration of its autoencoder."""
    pipe = assemble("StableDiffusionXLPipeline", CASES["StableDiffusionXL"].parts)
    adapt(pipe)
    pipe.vae.register_to_config(**vae)
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.to(dtype)
    return pipe
