"""The pipelines, by family: what differs from what `assemble` makes of the class by itself.

`CASES` pass the checks; `REFUSED` do not, for the reason given, which the test holds true.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import diffusers
import torch

from .assemble import SIZE, picture
from .convolutional import XL
from .parts import part
from .text import WIDTH, WORDS, encoder, tokenizer


@dataclass(frozen=True)
class Case:
    """A pipeline class and what is particular to it.

    Attributes:
        parts: constructor arguments, or functions that make them.
        call: arguments of the call; `...` leaves one out.
    """

    parts: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, Case] = {}
REFUSED: dict[str, str] = {
    "ChromaInpaint": "fails by itself in diffusers 0.42: reads `guidance_embeds`, which its transformer's config lacks",
    "CycleDiffusion": "the gradient of its noise inversion is not finite",
    "KarrasVe": "its scheduler's step takes noised latents as well",
    "MarigoldNormals": "normalises its prediction in place; autograd refuses the backward pass",
    "PNDM": "returns numpy arrays whatever is asked for",
    "RePaint": "returns numpy arrays whatever is asked for",
    "ScoreSdeVe": "its scheduler has no `step` (predictor and corrector of its own)",
    "StableDiffusionLDM3D": "has no tensor output",
    "StableDiffusionPanorama": "counts its views in place after dividing by them; autograd refuses the backward pass",
}


def family(names: str, parts: dict[str, Any] | None = None, **call: Any) -> None:
    """The same particulars for several classes, named without their "Pipeline", on top of earlier ones."""
    for name in names.split():
        before = CASES.get(name, Case())
        CASES[name] = Case(before.parts | (parts or {}), before.call | call)


def tiny(cls: str, **changes: Any) -> Callable[[], torch.nn.Module]:
    return partial(part, cls, **changes)


def unet(**changes: Any) -> Callable[[], torch.nn.Module]:
    return tiny("UNet2DConditionModel", **changes)


FRAMES = [picture(i) for i in range(5)]
ROW = torch.linspace(-1, 1, WIDTH).reshape(1, WIDTH)
IMAGE_EMBEDS = {"image_embeds": ROW, "negative_image_embeds": -ROW}
# For pipelines whose prompt cleaning needs a package of its own (ftfy).
EMBEDDED = {"prompt": None, "prompt_embeds": torch.linspace(-1, 1, 16 * WIDTH).reshape(1, 16, WIDTH)}
EMBEDDED |= {"negative_prompt_embeds": -EMBEDDED["prompt_embeds"]}  # type: ignore[operator]
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
family("CycleDiffusion", source_prompt="a dog")
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
    "StableDiffusion3Inpaint", SIXTEEN | {"transformer": tiny("SD3Transformer2DModel", in_channels=16, out_channels=16)}
)

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

# DeepFloyd IF, three stages in pixels
IF = {"out_channels": 6, "sample_size": SIZE}
family("IF IFImg2Img IFInpainting", {"unet": unet(in_channels=3, **IF)})
UP = {"unet": unet(in_channels=6, class_embed_type="timestep", **IF)}
family("IFSuperResolution", UP)
family("IFImg2ImgSuperResolution IFInpaintingSuperResolution", UP, original_image=picture())

# Kandinsky


def multilingual_clip() -> torch.nn.Module:
    from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP

    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 2, "num_hidden_layers": 2}
    return MultilingualCLIP(MCLIPConfig(numDims=WIDTH, transformerDimensions=WIDTH, vocab_size=len(WORDS), **sizes))


K2 = {
    "out_channels": 8,
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "encoder_hid_dim": WIDTH,
    "resnet_time_scale_shift": "scale_shift",
}
TEXT_IMAGE = {"encoder_hid_dim_type": "text_image_proj", "addition_embed_type": "text_image"}
IMAGE = {"encoder_hid_dim_type": "image_proj", "addition_embed_type": "image"}
HINT = {"unet": unet(**K2 | IMAGE | {"in_channels": 8, "addition_embed_type": "image_hint"})}
K21 = {"unet": unet(**K2 | TEXT_IMAGE), "text_encoder": multilingual_clip}
K21_INPAINT = K21 | {"unet": unet(**K2 | TEXT_IMAGE | {"in_channels": 9})}
K22, K22_INPAINT = {"unet": unet(**K2 | IMAGE)}, {"unet": unet(**K2 | IMAGE | {"in_channels": 9})}
family("KandinskyPrior KandinskyV22Prior KandinskyV22PriorEmb2Emb Kandinsky3 Kandinsky3Img2Img")
family("Kandinsky KandinskyImg2Img", K21, **IMAGE_EMBEDS)
family("KandinskyInpaint", K21_INPAINT, **IMAGE_EMBEDS)
family("KandinskyCombined KandinskyImg2ImgCombined", K21, prior_num_inference_steps=2)
family("KandinskyInpaintCombined", K21_INPAINT, prior_num_inference_steps=2)
family("KandinskyV22 KandinskyV22Img2Img", K22, **IMAGE_EMBEDS)
family("KandinskyV22Inpaint", K22_INPAINT, **IMAGE_EMBEDS)
family("KandinskyV22Combined KandinskyV22Img2ImgCombined", K22, prior_num_inference_steps=2)
family("KandinskyV22InpaintCombined", K22_INPAINT, prior_num_inference_steps=2)
family(
    "KandinskyV22Controlnet KandinskyV22ControlnetImg2Img",
    HINT,
    hint=torch.linspace(0, 1, 3 * 128 * 128).reshape(1, 3, 128, 128),
    **IMAGE_EMBEDS,
)
family("Kandinsky5T2I", {"tokenizer": partial(tokenizer, 1024)}, max_sequence_length=128)

# Wuerstchen and Stable Cascade
family("WuerstchenPrior")
family("WuerstchenDecoder", image_embeddings=torch.linspace(0, 1, 64).reshape(1, 4, 4, 4))
family("WuerstchenCombined", prior_num_inference_steps=2)
CASCADE_PRIOR = tiny(
    "StableCascadeUNet", clip_text_in_channels=WIDTH, clip_image_in_channels=WIDTH, switch_level=(False,)
)
CASCADE = tiny("StableCascadeUNet", in_channels=4, out_channels=4, effnet_in_channels=16)
family("StableCascadePrior", {"prior": CASCADE_PRIOR})
family("StableCascadeDecoder", {"decoder": CASCADE}, image_embeddings=torch.linspace(0, 1, 16).reshape(1, 16, 1, 1))
family("StableCascadeCombined", {"prior_prior": CASCADE_PRIOR, "decoder": CASCADE}, prior_num_inference_steps=2)

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

# Video
family("AnimateDiff AnimateDiffVideoToVideo AnimateDiffPAG")
family("AnimateDiffControlNet AnimateDiffVideoToVideoControlNet", conditioning_frames=FRAMES)
family("AnimateDiffSparseControlNet", conditioning_frames=[picture()])
family("AnimateDiffSDXL", {"unet": unet(**XL)})
family("PIA", {"unet": unet(in_channels=9)})
family("TextToVideoSD VideoToVideoSD")
family("StableVideoDiffusion", {"image_encoder": partial(encoder, "CLIPVisionModelWithProjection", image_size=224)})
family("StableVideoDiffusion", decode_chunk_size=2)
EXPERTS = {f"transformer{i}": tiny("WanTransformer3DModel") for i in ("", "_2")} | {"boundary_ratio": 0.5}
EXPERTS_I2V = {k: tiny("WanTransformer3DModel", in_channels=36) if k != "boundary_ratio" else 0.5 for k in EXPERTS}
family("Wan", EXPERTS, **EMBEDDED)
family("WanImageToVideo", EXPERTS_I2V, **EMBEDDED)
family("WanVACE", {"transformer": tiny("WanVACETransformer3DModel")}, **EMBEDDED)
family("LucyEdit", {"transformer": tiny("WanTransformer3DModel", in_channels=32)}, **EMBEDDED)
family("WanVideoToVideo SkyReelsV2 SkyReelsV2DiffusionForcing SkyReelsV2DiffusionForcingImageToVideo", **EMBEDDED)
family("CogVideoX CogVideoXVideoToVideo LTX LTXImageToVideo LTXCondition HunyuanVideo Mochi")
COG_I2V = {"transformer": tiny("CogVideoXTransformer3DModel", in_channels=8)}
family("CogVideoXImageToVideo", COG_I2V, num_frames=9)


def tiled() -> torch.nn.Module:
    """Allegro's autoencoder decodes in tiles only."""
    vae = part("AutoencoderKLAllegro")
    vae.enable_tiling()
    return vae


family("Allegro", {"vae": tiled}, num_frames=24)
family("Latte", video_length=2)
family("SanaVideo SanaImageToVideo", {"vae": tiny("AutoencoderKLWan")}, frames=5, **NO_BINS)

# Audio, and unconditional pictures
family("StableAudio DDIM DDPM ConsistencyModel PNDM ScoreSdeVe KarrasVe RePaint")
