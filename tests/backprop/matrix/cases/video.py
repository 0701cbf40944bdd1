"""Videos."""

from functools import partial
from typing import Any

import diffusers
import torch

from ..assemble import image
from ..convolutional import XL
from ..parts import part
from ..processors import qwen_vl_processor
from ..text import WIDTH, encoder, tokenizer
from .case import EMBEDDED, FRAMES, ROW, family, tiny, unet

# Video
family("AnimateDiff AnimateDiffVideoToVideo AnimateDiffPAG")
family("AnimateDiffControlNet AnimateDiffVideoToVideoControlNet", conditioning_frames=FRAMES)
family("AnimateDiffSparseControlNet", conditioning_frames=[image()])
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
family("SanaVideo SanaImageToVideo", {"vae": tiny("AutoencoderKLWan")}, frames=5, use_resolution_binning=False)
family("I2VGenXL", clip_skip=None)
family("TextToVideoZero TextToVideoZeroSDXL", video_length=3, t0=0, t1=1, output_type="latent")
family("TextToVideoZeroSDXL", {"unet": unet(**XL)})

# Motif
MOTIF = {"text_encoder": partial(encoder, "T5Gemma2Encoder"), "guider": diffusers.ClassifierFreeGuidance}
MOTIF |= {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler}
family("MotifVideo MotifVideoImage2Video", MOTIF)
MOTIF_I2V = {"transformer": tiny("MotifVideoTransformer3DModel", image_embed_dim=WIDTH)}
family("MotifVideoImage2Video", MOTIF_I2V)

# Sana's world model, whose camera moves forward
family("SanaWM", action="w-4", intrinsics=[32.0, 32.0, 16.0, 16.0])

# LTX 2: images and sound, denoised together
LTX2 = {"spatio_temporal_guidance_blocks": [1], "frame_rate": 25.0}
family("LTX2 LTX2ImageToVideo LTX2Condition LTX2InContext LTX2HDR", **LTX2)
family("LTX2ImageToVideo", image_crf=0)
KEYFRAMES = {"transformer": tiny("LTX2VideoTransformer3DModel", use_keyframes_abs_pos_embedding=True)}
family("LTX2DFR", KEYFRAMES, sigmas=[1.0, 0.5])
FEW = {
    "latents": torch.linspace(-1, 1, 4 * 4 * 8 * 8).reshape(1, 4, 4, 8, 8),
    "keyframes_latents": torch.linspace(-1, 1, 4 * 8 * 8).reshape(1, 4, 1, 8, 8),
    "audio_latents": torch.linspace(-1, 1, 2 * 7 * 2).reshape(1, 2, 7, 2),
}
family("LTX2DFRTemporalRefine", KEYFRAMES, sigmas=[1.0, 0.5], num_frames=7, keyframe_positions=[6], **FEW)
family("LTXI2VLongMultiPrompt", num_inference_steps=3)

# More of Wan, SkyReels and their relatives
SKY_I2V = {"in_channels": 36, "image_dim": WIDTH, "added_kv_proj_dim": 24}
family("SkyReelsV2ImageToVideo", {"transformer": tiny("SkyReelsV2Transformer3DModel", **SKY_I2V)}, **EMBEDDED)
family("SkyReelsV2DiffusionForcingVideoToVideo", overlap_history=1, base_num_frames=5, num_frames=9, **EMBEDDED)
family("WanAnimate", pose_video=FRAMES, face_video=FRAMES, segment_frame_length=5, **EMBEDDED)
family("ChronoEdit", **EMBEDDED)
family("AnyFlow AnyFlowFAR", video=..., **EMBEDDED)
family("Helios HeliosPyramid", image=..., video=..., **EMBEDDED)
family("Helios", {"scheduler": partial(diffusers.HeliosScheduler, stages=1, stage_range=[0, 1], gamma=1 / 3)})
# With gamma = 1 / 3, its default, some processors find the covariance of its blocks of noise singular.
PYRAMID = {"scheduler": partial(diffusers.HeliosScheduler, gamma=0.33)}
family("HeliosPyramid", PYRAMID, height=64, width=64, pyramid_num_inference_steps_list=[1, 1, 1])

# Kandinsky 5
K5 = {"tokenizer": partial(tokenizer, 2048)}
family("Kandinsky5T2V Kandinsky5I2V", K5, max_sequence_length=1024)
family("Kandinsky5I2V", num_frames=21)  # It makes its first four latent frames like those after them.

# Kandinsky 6: images and sound, and tiles made larger
K6: dict[str, Any] = {"tokenizer": partial(qwen_vl_processor, "Qwen2_5_VLProcessor", 1000)}
K6 |= {"audio_vae": tiny("MMAudioVAE"), "vocoder": tiny("MMAudioVocoder")}
family("Kandinsky6TI2VA", K6, frame_rate=8.0)
family("Kandinsky6SR", video=[image(i, size=64) for i in range(5)], resolution_scale=2)

# Hunyuan
family("HunyuanVideo15 HunyuanVideo15ImageToVideo HunyuanVideoFramepack")
HUNYUAN_8 = {"transformer": tiny("HunyuanVideoTransformer3DModel", in_channels=8)}
family("HunyuanSkyreelsImageToVideo", HUNYUAN_8)
HUNYUAN_I2V = {
    "transformer": tiny("HunyuanVideoTransformer3DModel", in_channels=9, image_condition_type="latent_concat")
}
HUNYUAN_I2V |= dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
HUNYUAN_PROMPT = {"prompt": None, "prompt_embeds": EMBEDDED["prompt_embeds"], "pooled_prompt_embeds": ROW}
HUNYUAN_PROMPT |= {"prompt_attention_mask": torch.ones(1, 16)}
family("HunyuanVideoImageToVideo", HUNYUAN_I2V, num_frames=9, **HUNYUAN_PROMPT)
family("EasyAnimate EasyAnimateControl EasyAnimateInpaint", negative_prompt="a dog")
VIDEO = torch.linspace(0, 1, 3 * 5 * 32 * 32).reshape(1, 3, 5, 32, 32)
INPAINT = {"transformer": tiny("EasyAnimateTransformer3DModel", in_channels=9)}
family("EasyAnimateInpaint", INPAINT, video=VIDEO, mask_video=VIDEO[:, :1].round())
FUN = {"transformer": tiny("CogVideoXTransformer3DModel", in_channels=8)}
family("CogVideoXFunControl", FUN, control_video=FRAMES)

# Cosmos 3 without its safety checker, whose package is not here
COSMOS_3 = {"vae": tiny("AutoencoderKLWan"), "text_tokenizer": partial(tokenizer, 512), "enable_safety_checker": False}
family("Cosmos3Omni", COSMOS_3, video=..., enable_safety_check=False)
