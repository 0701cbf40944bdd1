"""Tiny instances of the real classes: seconds for a whole test, nothing downloaded, nothing mocked."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def clip_tokenizer() -> CLIPTokenizer:
    """A byte-pair tokenizer of single letters."""
    words = [*LETTERS, *(f"{c}</w>" for c in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[], model_max_length=8)


def _clip_config() -> CLIPTextConfig:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    # vocab: 52 letters, start 52, end 53
    tokens = {"vocab_size": 54, "bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53}
    return CLIPTextConfig(**sizes, **tokens, max_position_embeddings=8, projection_dim=16)


def _vae(latent_channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=[8, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=latent_channels,
        norm_num_groups=4,
        shift_factor=0.1,
        scaling_factor=0.5,
    )


def _with_adapter(pipe: Any, denoiser: torch.nn.Module) -> Any:
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.requires_grad_(False).eval()
    # Gaussian: both factors start away from zero, so that every adapter parameter has a gradient.
    denoiser.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian"))
    for name, p in denoiser.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stable_diffusion(scheduler: Any = None) -> StableDiffusionPipeline:
    """A UNet pipeline with a text encoder of random weights and a LoRA adapter; 16 x 16 images."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    pipe = StableDiffusionPipeline(
        vae=_vae(4),
        text_encoder=CLIPTextModel(_clip_config()),
        tokenizer=clip_tokenizer(),
        unet=unet,
        scheduler=scheduler or ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _with_adapter(pipe, unet)


def stable_diffusion_3() -> StableDiffusion3Pipeline:
    """A transformer pipeline with a flow-matching scheduler (no T5 encoder: the pipeline fills in zeros)."""
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
    )
    pipe = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(4),
        text_encoder=CLIPTextModelWithProjection(_clip_config()),
        tokenizer=clip_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config()),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )
    return _with_adapter(pipe, transformer)


def ddim(**config: Any) -> DDIMScheduler:
    """DDIM as Stable Diffusion uses it: no clipping, which would not be linear."""
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    return DDIMScheduler(**betas, clip_sample=False, steps_offset=1, **config)


def pndm() -> PNDMScheduler:
    """What Stable Diffusion 1.5 comes with; it takes a step more than `num_inference_steps`."""
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    return PNDMScheduler(**betas, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)


def denoiser_of(pipe: Any) -> torch.nn.Module:
    """The module that is trained."""
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


def trained(pipe: Any) -> list[torch.nn.Parameter]:
    """The adapter's parameters."""
    return [p for p in denoiser_of(pipe).parameters() if p.requires_grad]


def reward(images: torch.Tensor) -> torch.Tensor:
    """A smooth reward that is not linear in the images, so that its gradient depends on them."""
    ramp = torch.linspace(-1, 1, images.shape[-1], dtype=images.dtype)
    return (torch.tanh(3 * images - 1) * ramp).sum()


def gradients(pipe: Any, images: torch.Tensor) -> list[torch.Tensor]:
    """dR/dtheta for the adapter's parameters; zeros for those without a path."""
    got = torch.autograd.grad(reward(images), trained(pipe), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(trained(pipe), got, strict=True)]


def double(pipe: Any) -> Any:
    """Everything in float64."""
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.to(torch.float64)
    return pipe


def assert_same(got: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """Equal up to rounding in float64: both sides do the same operations, but add gradients in another order.

    1e-9 of the largest entry leaves a factor 1e6 over double precision for the steps of a small network.
    """
    assert any(e.abs().max() > 0 for e in expected)
    for g, e in zip(got, expected, strict=True):
        assert (g - e).abs().max() <= 1e-9 * e.abs().max()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
