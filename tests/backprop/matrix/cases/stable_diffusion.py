"""Stable Diffusion 1, 2, XL, unCLIP and 3, and DeepFloyd IF."""

from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers
import torch

from ..assemble import SIZE, image, scheduler
from ..convolutional import XL
from ..parts import part
from ..text import WIDTH, WORDS, encoder, tokenizer
from .case import family, tiny, unet

CROSS_FIRST = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}

# Stable Diffusion 1 and 2
family("StableDiffusion StableDiffusionImg2Img StableDiffusionInpaint StableDiffusionImageVariation StableDiffusionSAG")
family("StableDiffusionPAG StableDiffusionPAGImg2Img StableDiffusionPAGInpaint", {"pag_applied_layers": ["mid", "up"]})
family("StableDiffusionControlNet StableDiffusionControlNetImg2Img StableDiffusionControlNetInpaint")
family("StableDiffusionControlNetPAG StableDiffusionControlNetPAGInpaint", {"pag_applied_layers": ["mid", "up"]})
family("StableDiffusionInstructPix2Pix", {"unet": unet(in_channels=8)})
family("StableDiffusionAdapter", {"unet": unet(**CROSS_FIRST)}, output_type="latent")
family("StableDiffusionUpscale", {"unet": unet(in_channels=7, num_class_embeds=1000), "max_noise_level": 350})
family("StableDiffusionModelEditing SemanticStableDiffusion StableDiffusionLDM3D StableDiffusionPanorama")
# As published models have it; else the last step's variance, by which it divides, is zero.
CYCLE = {"scheduler": lambda: scheduler(["DDIMScheduler"], set_alpha_to_one=False)}
family("CycleDiffusion", CYCLE, source_prompt="a dog")
LCM = {"unet": unet(time_cond_proj_dim=8), "scheduler": diffusers.LCMScheduler}
family("LatentConsistencyModel LatentConsistencyModelImg2Img", LCM, original_inference_steps=8)
family("MarigoldDepth MarigoldNormals", {"unet": unet(in_channels=8)}, processing_resolution=SIZE)

# Stable Diffusion XL
XL_PARTS = {"unet": unet(**XL), "force_zeros_for_empty_prompt": True}
XL_CONTROL = XL_PARTS | {"controlnet": tiny("ControlNetModel", **XL)}
XL_PAG = {"pag_applied_layers": ["mid"]}
family("StableDiffusionXL StableDiffusionXLImg2Img StableDiffusionXLInpaint", XL_PARTS)
family("StableDiffusionXLPAG StableDiffusionXLPAGImg2Img StableDiffusionXLPAGInpaint", XL_PARTS | XL_PAG)
family("StableDiffusionXLControlNet StableDiffusionXLControlNetImg2Img StableDiffusionXLControlNetInpaint", XL_CONTROL)
family("StableDiffusionXLControlNetPAG StableDiffusionXLControlNetPAGImg2Img", XL_CONTROL | XL_PAG)
UNION = {"controlnet": tiny("ControlNetUnionModel", **XL)}
family("StableDiffusionXLControlNetUnion StableDiffusionXLControlNetUnionImg2Img", XL_PARTS | UNION, control_mode=1)
family("StableDiffusionXLControlNetUnionInpaint", XL_PARTS | UNION, control_mode=1, control_image=[image(2)])
family("StableDiffusionXLInstructPix2Pix", XL_PARTS | {"unet": unet(**XL | {"in_channels": 8})})
family("StableDiffusionXLAdapter", XL_PARTS | {"unet": unet(**XL | CROSS_FIRST)})

# Stable unCLIP


def normalizer() -> torch.nn.Module:
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    return StableUnCLIPImageNormalizer(embedding_dim=WIDTH)


UNCLIP = {
    "image_normalizer": normalizer,
    "image_noising_scheduler": diffusers.DDPMScheduler,
    "unet": unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH),
}
family("StableUnCLIP", UNCLIP, prior_num_inference_steps=2)
family("StableUnCLIPImg2Img", UNCLIP)

# Stable Diffusion 3
NO_T5 = {"text_encoder_3": None, "tokenizer_3": None}
family("StableDiffusion3 StableDiffusion3Img2Img StableDiffusion3Inpaint StableDiffusion3ControlNet", NO_T5)
family("StableDiffusion3PAG StableDiffusion3PAGImg2Img", NO_T5 | {"pag_applied_layers": ["0"]})
SIXTEEN = {"vae": tiny("AutoencoderKL", latent_channels=16)}
family(
    "StableDiffusion3ControlNetInpainting",
    NO_T5 | {"controlnet": tiny("SD3ControlNetModel", extra_conditioning_channels=1)},
)
family(
    "StableDiffusion3Inpaint", SIXTEEN | {"transformer": tiny("SD3Transformer2DModel", in_channels=16, out_channels=16)}
)

# DeepFloyd IF, three stages in pixels
IF = {"out_channels": 6, "sample_size": SIZE}
family("IF IFImg2Img IFInpainting", {"unet": unet(in_channels=3, **IF)})
UP = {"unet": unet(in_channels=6, class_embed_type="timestep", **IF)}
family("IFSuperResolution", UP)
family("IFImg2ImgSuperResolution IFInpaintingSuperResolution", UP, original_image=image())

# Older ones


def image_projection() -> torch.nn.Module:
    from diffusers.pipelines.stable_diffusion.clip_image_project_model import CLIPImageProjection

    return CLIPImageProjection(hidden_size=WIDTH)


def example_encoder() -> torch.nn.Module:
    from diffusers.pipelines.deprecated.paint_by_example.image_encoder import PaintByExampleImageEncoder

    return PaintByExampleImageEncoder(encoder("CLIPVisionModel").config, proj_size=WIDTH)


family("PaintByExample", {"image_encoder": example_encoder, "unet": unet(in_channels=9)}, example_image=image(2))
family(
    "StableDiffusionDepth2Img",
    {"unet": unet(in_channels=5), "depth_estimator": None, "feature_extractor": None},
    depth_map=torch.linspace(0, 1, SIZE * SIZE).reshape(1, SIZE, SIZE),
)
family("StableDiffusionLatentUpscale", {"unet": unet(in_channels=8, out_channels=5, time_cond_proj_dim=128 + WIDTH)})
family(
    "StableDiffusionGLIGEN",
    {"unet": unet(attention_type="gated")},
    gligen_phrases=["a"],
    gligen_boxes=[[0.1, 0.1, 0.6, 0.6]],
)
family(
    "StableDiffusionGLIGENTextImage",
    {"unet": unet(attention_type="gated-text-image"), "image_project": image_projection},
    gligen_phrases=["a"],
    gligen_images=[image(1)],
    gligen_boxes=[[0.1, 0.1, 0.6, 0.6]],
)
family(
    "StableDiffusionDiffEdit",
    {"inverse_scheduler": diffusers.DDIMInverseScheduler},
    image_latents=torch.linspace(-1, 1, 2 * 4 * 16 * 16).reshape(1, 2, 4, 16, 16),
    mask_image=torch.eye(16)[None],
    inpaint_strength=1.0,
)
family("StableDiffusionParadigms", {"scheduler": diffusers.DDIMParallelScheduler})
family("MarigoldIntrinsics", {"unet": unet(in_channels=12, out_channels=8)}, processing_resolution=SIZE)


def xs(**changes: Any) -> Callable[[], torch.nn.Module]:
    return lambda: diffusers.ControlNetXSAdapter.from_unet(
        part("UNet2DConditionModel", layers_per_block=2, **changes),
        size_ratio=1.0,
        conditioning_embedding_out_channels=(8, 8),
        learn_time_embedding=True,
    )


family("StableDiffusionControlNetXS", {"unet": unet(layers_per_block=2), "controlnet": xs()})
family("StableDiffusionXLControlNetXS", XL_PARTS | {"unet": unet(**XL, layers_per_block=2), "controlnet": xs(**XL)})

# UniDiffuser, which can make words as well
family("UniDiffuser", image=...)


def roberta_series() -> torch.nn.Module:
    from diffusers.pipelines.deprecated.alt_diffusion import modeling_roberta_series as roberta

    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = roberta.RobertaSeriesConfig(vocab_size=len(WORDS), project_dim=WIDTH, pad_token_id=0, **sizes)
    return roberta.RobertaSeriesModelWithTransformation(config)


# AltDiffusion, with prompts in several languages
family("AltDiffusion AltDiffusionImg2Img", {"text_encoder": roberta_series, "tokenizer": partial(tokenizer, 77)})

# Versatile Diffusion
FLAT = {"text_unet": tiny("UNetFlatConditionModel")}
family("VersatileDiffusionTextToImage VersatileDiffusionDualGuided", FLAT)
family("VersatileDiffusionImageVariation")
