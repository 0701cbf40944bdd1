"""What a tiny model of the tests draws, and weights as after some training."""

from collections.abc import Mapping

import torch
from diffusers import DiffusionPipeline

from sdo_ray.models.precision import own_precision


def draw(pipeline: DiffusionPipeline) -> torch.Tensor:
    """[2, 3, H, W] in [0, 1], always of the same prompts and noise."""
    noise = [torch.Generator().manual_seed(i) for i in range(2)]
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad(), own_precision(pipeline):
        return pipeline(["a", "b"], generator=noise, num_inference_steps=3, guidance_scale=2.0, output_type="pt").images


def moved(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as after some training."""
    noise = torch.Generator().manual_seed(1)
    return {name: tensor + 0.1 * torch.randn(tensor.shape, generator=noise) for name, tensor in weights.items()}
