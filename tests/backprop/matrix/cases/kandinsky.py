"""Kandinsky, Wuerstchen and Stable Cascade."""

from functools import partial

import torch

from ..processors import qwen_vl_processor
from ..text import WIDTH, WORDS, tokenizer
from .case import IMAGE_EMBEDS, VAE_8, family, tiny, unet

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
# It makes images of a million pixels only: what it returns is compared before it is decoded.
EDIT = {
    "tokenizer": partial(qwen_vl_processor, "Qwen2VLProcessor", 2048),
    "transformer": tiny("Kandinsky5Transformer3DModel", visual_cond=True),
}
family("Kandinsky5I2I", VAE_8 | EDIT, max_sequence_length=1024, output_type="latent")

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
