"""Pictures from transformers."""

from functools import partial

import diffusers

from ..assemble import SIZE, picture
from ..processors import qwen_vl_processor
from ..text import encoder
from .case import family, tiny

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
NO_BINS = {"use_resolution_binning": False}
family("PixArtAlpha PixArtSigma Sana SanaPAG SanaControlNet", **NO_BINS)
family("PixArtSigmaPAG", {"pag_applied_layers": ["blocks.0"]}, **NO_BINS)
SPRINT = {"scheduler": diffusers.SCMScheduler, "transformer": tiny("SanaTransformer2DModel", guidance_embeds=True)}
family("SanaSprint SanaSprintImg2Img", SPRINT, **NO_BINS)
BLOCKS_4 = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
VAE_8 = {"vae": tiny("AutoencoderKL", block_out_channels=(8,) * 4, **BLOCKS_4)}
family("HunyuanDiT HunyuanDiTPAG HunyuanDiTControlNet", VAE_8, height=128, width=128, **NO_BINS)
family("HunyuanDiTControlNet", control_image=picture(size=128))
family("AuraFlow CogView3Plus CogView4 Lumina Lumina2")
family("CogView4Control", {"transformer": tiny("CogView4Transformer2DModel", in_channels=8)})
family("DiT", class_labels=[1])
family("ZImage ZImageImg2Img ZImageInpaint", {"text_encoder": partial(encoder, "Qwen3Model")})
family("QwenImage QwenImageImg2Img QwenImageInpaint QwenImageControlNet")

# Qwen Image
QWEN_VL = {"true_cfg_scale": 2.0, "negative_prompt": "a dog", "guidance_scale": None, "num_inference_steps": 2}
family(
    "QwenImageEdit QwenImageEditInpaint QwenImageEditPlus QwenImageLayered",
    {"processor": partial(qwen_vl_processor, "Qwen2VLProcessor", 1000)},
    **QWEN_VL,
)
family("QwenImageControlNetInpaint", {"controlnet": tiny("QwenImageControlNetModel", extra_condition_channels=4)})
family("ZImageControlNet ZImageControlNetInpaint ZImageOmni", {"text_encoder": partial(encoder, "Qwen3Model")})
family("Flux2KleinInpaint Flux2KleinKV", text_encoder_out_layers=(1,))
