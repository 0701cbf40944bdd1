"""Images without prompts, the first latent diffusion, and shapes."""

from functools import partial

import torch

from ..text import WIDTH, WORDS, tokenizer
from .case import family, tiny, unet

family("DDIM DDPM ConsistencyModel PNDM ScoreSdeVe KarrasVe RePaint")
family("PNDM", num_inference_steps=10)  # Its scheduler cannot make two.

# Latent diffusion
family("LDM", {"unet": tiny("UNet2DModel", in_channels=4, out_channels=4)})


def bert() -> torch.nn.Module:
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

    sizes = {"d_model": WIDTH, "encoder_ffn_dim": WIDTH, "encoder_layers": 1, "encoder_attention_heads": 2}
    return LDMBertModel(LDMBertConfig(vocab_size=len(WORDS), head_dim=16, **sizes))


family(
    "LDMTextToImage",
    {"bert": bert, "tokenizer": partial(tokenizer, 77), "vqvae": tiny("AutoencoderKL"), "unet": unet()},
)
SUPER = {"unet": tiny("UNet2DModel", in_channels=6), "vqvae": tiny("VQModel", latent_channels=3, vq_embed_dim=3)}
family("LDMSuperResolution", SUPER)

# Shapes, compared before they are rendered
SHAPE = {
    "num_embeddings": 8,
    "additional_embeddings": 0,
    "clip_embed_dim": 2 * WIDTH,
    "encoder_hid_proj_type": None,
    "added_emb_type": None,
    "embedding_proj_norm_type": "layer",
}
family(
    "ShapE ShapEImg2Img", {"prior": tiny("PriorTransformer", **SHAPE), "shap_e_renderer": None}, output_type="latent"
)
