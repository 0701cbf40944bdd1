"""Videos."""

from functools import partial

import torch

from ..assemble import picture
from ..convolutional import XL
from ..parts import part
from ..text import encoder
from .case import EMBEDDED, FRAMES, family, tiny, unet

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
family("SanaVideo SanaImageToVideo", {"vae": tiny("AutoencoderKLWan")}, frames=5, use_resolution_binning=False)
