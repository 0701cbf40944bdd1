"""Images from transformers."""

from functools import partial
from typing import Any

import diffusers
import torch
import transformers

from ..assemble import SIZE, image
from ..parts import part
from ..processors import qwen_vl_processor
from ..text import WIDTH, encoder, t5_gemma_encoder, tokenizer
from .case import EMBEDDED, VAE_8, family, tiny

# Flux and its relatives
family("Flux FluxImg2Img FluxInpaint FluxControlNet FluxControlNetImg2Img FluxControlNetInpaint")
family("FluxKontext FluxKontextInpaint", max_area=SIZE * SIZE, _auto_resize=False)
CONTROL = {"transformer": tiny("FluxTransformer2DModel", in_channels=32, out_channels=16)}
family("FluxControl FluxControlImg2Img FluxControlInpaint", CONTROL)
FILL = {"transformer": tiny("FluxTransformer2DModel", in_channels=48, out_channels=16)}
family("FluxFill", FILL)
family("Flux2Klein", text_encoder_out_layers=(1,), image=...)
family("Chroma ChromaImg2Img ChromaInpaint OvisImage")
family("Bria", {"scheduler": diffusers.EulerDiscreteScheduler})

# Image transformers
MASKS = {f"{prompt}_attention_mask": torch.ones(1, 16, dtype=torch.bool) for prompt in ("prompt", "negative_prompt")}
NO_BINS = {"use_resolution_binning": False}
family("PixArtAlpha PixArtSigma Sana SanaPAG SanaControlNet", **NO_BINS)
family("PixArtSigmaPAG", {"pag_applied_layers": ["blocks.0"]}, **NO_BINS)
SPRINT = {"scheduler": diffusers.SCMScheduler, "transformer": tiny("SanaTransformer2DModel", guidance_embeds=True)}
family("SanaSprint SanaSprintImg2Img", SPRINT, **NO_BINS)
family("HunyuanDiT HunyuanDiTPAG HunyuanDiTControlNet", VAE_8, height=128, width=128, **NO_BINS)
family("HunyuanDiTControlNet", control_image=image(size=128))
family("AuraFlow CogView3Plus CogView4 Lumina Lumina2")
family("CogView4Control", {"transformer": tiny("CogView4Transformer2DModel", in_channels=8)})
family("DiT", class_labels=[1])
family("ZImage ZImageImg2Img ZImageInpaint", {"text_encoder": partial(encoder, "Qwen3Model")})
family("QwenImage QwenImageImg2Img QwenImageInpaint QwenImageControlNet")

# These take images of a million pixels only: what they return is compared before it is decoded.
LATENT = {"output_type": "latent"}

# Qwen Image
QWEN_VL = {"true_cfg_scale": 2.0, "negative_prompt": "a dog", "guidance_scale": None, "num_inference_steps": 2}
family(
    "QwenImageEdit QwenImageEditInpaint QwenImageEditPlus QwenImageLayered",
    {"processor": partial(qwen_vl_processor, "Qwen2VLProcessor", 1000)},
    **QWEN_VL,
)
DEEP_QWEN = {"dim_mult": [1] * 6, "temperal_downsample": [False, True, True, False, False]}
family("QwenImageEditInpaint QwenImageLayered", {"vae": tiny("AutoencoderKLQwenImage", **DEEP_QWEN)})
family("QwenImageEditInpaint", **LATENT)
family("QwenImageLayered", layers=1)
family("QwenImageControlNetInpaint", {"controlnet": tiny("QwenImageControlNetModel", extra_condition_channels=4)})


def z_image_controlnet(**changes: Any) -> torch.nn.Module:
    """With the attribute that diffusers 0.42 reads where gradients are on, but does not give this class."""
    controlnet = part("ZImageControlNetModel", **changes)
    setattr(controlnet, "gradient_checkpointing", False)  # noqa: B010
    return controlnet


Z_IMAGE = {"text_encoder": partial(encoder, "Qwen3Model")}
family("ZImageControlNet", Z_IMAGE | {"controlnet": z_image_controlnet})
family("ZImageControlNetInpaint", Z_IMAGE | {"controlnet": partial(z_image_controlnet, control_in_dim=9)})
OMNI = Z_IMAGE | {
    "transformer": tiny("ZImageTransformer2DModel", siglip_feat_dim=WIDTH),
    "vae": lambda: part("AutoencoderKL").to(torch.bfloat16),  # To which it casts its image.
    "siglip_processor": partial(transformers.Siglip2ImageProcessorPil, patch_size=8, max_num_patches=16),
}
family("ZImageOmni", OMNI, image=[image(size=64)])
family("Flux2KleinInpaint Flux2KleinKV", text_encoder_out_layers=(1,))
family("Flux2KleinKV", image=image(size=64))
family("Flux2", text_encoder_out_layers=(1,), image=...)

# GLM-Image, whose plan in tokens is given
family(
    "GlmImage",
    {"processor": None, "vision_language_encoder": None}
    | {"vae": tiny("AutoencoderKL", latents_mean=[0.1] * 4, latents_std=[0.5] * 4)},
    prior_token_ids=torch.arange(64).reshape(1, 64) % 16,
    image=...,
)
LONG_CAT = {"transformer": tiny("LongCatImageTransformer2DModel", in_channels=64)}
BLOCKS_6 = {"down_block_types": ("DownEncoderBlock2D",) * 6, "up_block_types": ("UpDecoderBlock2D",) * 6}
family("PRX PRXPixel", {"text_encoder": t5_gemma_encoder})
PIXELS = {"transformer": tiny("PRXTransformer2DModel", in_channels=3)}
family("PRX PRXPixel", **NO_BINS)
family("PRX PRXPixel", **EMBEDDED, **MASKS)
family("PRX", {"vae": tiny("AutoencoderKL")})
family("PRXPixel", PIXELS)
FIBO = {"transformer": tiny("BriaFiboTransformer2DModel", in_channels=16, joint_attention_dim=2 * WIDTH)}
family("BriaFibo BriaFiboEdit", FIBO | {"vae": tiny("AutoencoderKLWan")})
family("BriaFibo", negative_prompt="a dog")
family("BriaFiboEdit", prompt='{"edit_instruction": "a cat"}', negative_prompt="a dog")
SIXTEEN = {"vae": tiny("AutoencoderKL", latent_channels=16)}
SMALL_AT_1024 = {"vae": tiny("AutoencoderKL", latent_channels=16, block_out_channels=(8,) * 6, **BLOCKS_6)}
family("LongCatImage", SIXTEEN | LONG_CAT, enable_prompt_rewrite=False)
family("LongCatImageEdit", SMALL_AT_1024 | LONG_CAT, **LATENT)
BUNDLES = torch.linspace(-1, 1, 2 * 8 * WIDTH).reshape(1, 2, 8, WIDTH)
family("BriaFibo2", prompt=None, prompt_embeds=BUNDLES, negative_prompt_embeds=-BUNDLES)
family("HiDreamImage HunyuanImage HunyuanImageRefiner ErnieImage JoyImageEdit JoyImageEditPlus")
DEEP_WAN = {"vae": tiny("AutoencoderKLWan", **DEEP_QWEN, scale_factor_spatial=32)}
family("JoyImageEdit", DEEP_WAN, **LATENT)
REFINED: dict[str, Any] = {"in_channels": 16, "out_channels": 8, "text_embed_2_dim": None}
REFINED |= {"patch_size": (1, 1, 1), "rope_axes_dim": (4, 4, 8)}
REFINER = {"transformer": tiny("HunyuanImageTransformer2DModel", **REFINED)}
family("HunyuanImageRefiner", REFINER)
family("Krea2", {"text_encoder_select_layers": (0, 1)})
family("NucleusMoEImage", return_index=-1)
family("QwenImage21", image=...)
DEEP = {"text_encoder": partial(encoder, "Qwen3VLModel", num_hidden_layers=36)}
family("Ideogram4", DEEP, guidance_scale=None, guidance_schedule=(3.0, 3.0))
CLOZE = {"transformer": tiny("FluxTransformer2DModel", in_channels=48, out_channels=16), "resolution": SIZE}
family("VisualCloze VisualClozeGeneration", CLOZE, task_prompt="a task", content_prompt="a cat", prompt=...)
family("VisualCloze VisualClozeGeneration", image=[[image(1), image(2)], [image(3), None]])
family("VisualCloze", upsampling_strength=0.0)

# DreamLite, a small convolutional one with a vision-language model's prompts
LITE = {"processor": partial(qwen_vl_processor, "Qwen3VLProcessor", 1000), "tokenizer": partial(tokenizer, 1000)}
family("DreamLite DreamLiteMobile", LITE, image=...)
