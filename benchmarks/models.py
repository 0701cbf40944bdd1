"""The models that benchmarks run on: the embedded one, and random weights at the published sizes of others.

What an update costs depends on the shapes, not on the weights. The shapes are those of the configuration files of
Stable Diffusion 1.5, Stable Diffusion XL base 1.0 and Stable Diffusion 3.5 medium; text encoders are left out and
random embeddings of their shapes are given instead, because every plan pays for them alike. With `tiny`, the same code
builds the same classes in miniature, to run anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import trained_parameters
from sdo_ray.models.trained.lora import LoraSettings, attach


@dataclass(frozen=True)
class BenchmarkModel:
    """A pipeline with an adapter, and how to call it."""

    pipeline: Any
    call: Callable[[int], dict[str, Any]]
    """Number of images -> the call's arguments that say what to draw."""


def load_model(name: str, *, rank: int, dtype: str, device: str, tiny: bool = False) -> BenchmarkModel:
    """A model of `MODELS` with a LoRA of its attention layers, the only part that requires gradients.

    Args:
        name: one of `MODELS`.
        rank: of the LoRA.
        dtype: torch type of the frozen weights and of sampling.
        device: torch device.
        tiny: for the models with random weights, the same classes in miniature.
    """
    torch.manual_seed(0)
    model = MODELS[name](dtype, device, tiny)
    trained = attach(model.pipeline.components, LoraSettings(rank=rank, alpha=float(rank)))
    for parameter in trained_parameters(trained).values():
        parameter.data = parameter.data.to(getattr(torch, dtype))  # a sampler's working copy
    return model


def _emoji(dtype: str, device: str, tiny: bool) -> BenchmarkModel:
    pipeline = load_pipeline("zoo://emoji", dtype, device)
    return BenchmarkModel(pipeline, lambda count: {"prompt": ["a red heart"] * count})


def _sd15(dtype: str, device: str, tiny: bool) -> BenchmarkModel:
    width, tokens = (32, 8) if tiny else (768, 77)
    unet = {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": width,
        "attention_head_dim": 8,
    }
    if tiny:
        unet |= {
            "sample_size": 8,
            "attention_head_dim": 2,
            "block_out_channels": (8, 8, 16, 16),
            "norm_num_groups": 4,
            "layers_per_block": 1,
        }
    pipeline = StableDiffusionPipeline(
        vae=_autoencoder(4, 0.18215, tiny),
        text_encoder=None,
        tokenizer=None,
        unet=_built(UNet2DConditionModel, unet, device),
        scheduler=_ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    embeddings: dict[str, tuple[int, ...]] = {
        "prompt_embeds": (tokens, width),
        "negative_prompt_embeds": (tokens, width),
    }
    return _random(pipeline, dtype, device, embeddings)


def _sdxl(dtype: str, device: str, tiny: bool) -> BenchmarkModel:
    width, pooled, tokens = (32, 16, 8) if tiny else (2048, 1280, 77)
    unet = {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": width,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        # Six numbers of size and crop, each embedded, beside the pooled text.
        "projection_class_embeddings_input_dim": pooled + 6 * 256,
    }
    if tiny:
        unet |= {
            "sample_size": 8,
            "block_out_channels": (8, 16, 16),
            "layers_per_block": 1,
            "transformer_layers_per_block": (1, 1, 1),
            "attention_head_dim": (2, 2, 2),
            "norm_num_groups": 4,
        }
    pipeline = StableDiffusionXLPipeline(
        vae=_autoencoder(4, 0.13025, tiny),
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=_built(UNet2DConditionModel, unet, device),
        scheduler=_ddim(),
        add_watermarker=False,
    )
    embeddings = {
        "prompt_embeds": (tokens, width),
        "negative_prompt_embeds": (tokens, width),
        "pooled_prompt_embeds": (pooled,),
        "negative_pooled_prompt_embeds": (pooled,),
    }
    return _random(pipeline, dtype, device, embeddings)


def _sd35_medium(dtype: str, device: str, tiny: bool) -> BenchmarkModel:
    # 77 tokens of CLIP and 256 of T5.
    width, pooled, tokens = (32, 16, 8) if tiny else (4096, 2048, 333)
    transformer = {
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 24,
        "num_attention_heads": 24,
        "attention_head_dim": 64,
        "joint_attention_dim": width,
        "caption_projection_dim": 1536,
        "pooled_projection_dim": pooled,
        "pos_embed_max_size": 384,
        "dual_attention_layers": tuple(range(13)),
        "qk_norm": "rms_norm",
    }
    if tiny:
        transformer |= {
            "sample_size": 8,
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "caption_projection_dim": 32,
            "pos_embed_max_size": 16,
            "dual_attention_layers": (0,),
        }
    pipeline = StableDiffusion3Pipeline(
        transformer=_built(SD3Transformer2DModel, transformer, device),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_autoencoder(16, 1.5305, tiny, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=None,
        text_encoder_2=None,
        text_encoder_3=None,
        tokenizer=None,
        tokenizer_2=None,
        tokenizer_3=None,
    )
    embeddings = {
        "prompt_embeds": (tokens, width),
        "negative_prompt_embeds": (tokens, width),
        "pooled_prompt_embeds": (pooled,),
        "negative_pooled_prompt_embeds": (pooled,),
    }
    return _random(pipeline, dtype, device, embeddings)


MODELS: dict[str, Callable[[str, str, bool], BenchmarkModel]] = {
    "emoji": _emoji,
    "sd15": _sd15,
    "sdxl": _sdxl,
    "sd35-medium": _sd35_medium,
}
"""Name -> (dtype, device, tiny) -> the model."""


def _built(kind: Any, config: dict[str, Any], device: str) -> torch.nn.Module:
    # Billions of random numbers take a minute on a CPU.
    with torch.device(device):
        module: torch.nn.Module = kind.from_config(config)
    return module


def _ddim() -> DDIMScheduler:
    """As Stable Diffusion's: no clipping, which would not be linear."""
    return DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
    )


def _autoencoder(channels: int, scaling_factor: float, tiny: bool, **config: Any) -> AutoencoderKL:
    widths = (8, 8, 8, 8) if tiny else (128, 256, 512, 512)
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1 if tiny else 2,
        latent_channels=channels,
        norm_num_groups=8 if tiny else 32,
        scaling_factor=scaling_factor,
        force_upcast=False,
        **config,
    )


def _random(pipeline: Any, dtype: str, device: str, embeddings: dict[str, tuple[int, ...]]) -> BenchmarkModel:
    """The pipeline frozen on its device, called with random embeddings of these shapes, the batch left out."""
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device, getattr(torch, dtype))
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()

    def call(count: int) -> dict[str, Any]:
        return {
            name: torch.randn(count, *shape, device=device, dtype=getattr(torch, dtype))
            for name, shape in embeddings.items()
        }

    return BenchmarkModel(pipeline, call)
