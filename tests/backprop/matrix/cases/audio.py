"""Audio."""

from functools import partial

import diffusers
import torch

from ..parts import part
from ..sound import clap, clap_text, gpt2, vocoder
from ..text import WIDTH, encoder, t5_gemma_encoder
from .case import ROW, family, tiny, unet

family("StableAudio")
family("AceStep", {"text_encoder": partial(encoder, "Qwen3Model")}, audio_duration=4.0)
family("LongCatAudioDiT", audio_duration_s=1.0)

# Without prompts
family("DanceDiffusion", {"unet": tiny("UNet1DModel"), "scheduler": diffusers.IPNDMScheduler}, audio_length_in_s=4.0)

# AudioLDM and its relatives: spectra, and a vocoder
MEL = {"vae": tiny("AutoencoderKL", in_channels=1, out_channels=1), "vocoder": vocoder}
CLASSES = {"class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": WIDTH}
BY_CLASS = {"unet": unet(cross_attention_dim=(8, 16), class_embeddings_concat=True, **CLASSES)}
family("AudioLDM MusicLDM", MEL | BY_CLASS | {"text_encoder": clap_text}, audio_length_in_s=4.0)
# What it takes from its text encoder is no tensor with transformers 5.
PROMPT = {"prompt": None, "prompt_embeds": ROW, "negative_prompt_embeds": -ROW}
family("MusicLDM", {"text_encoder": clap, "feature_extractor": None}, **PROMPT)
LDM2 = {
    "text_encoder": clap,
    "language_model": gpt2,
    "feature_extractor": None,
    "projection_model": tiny("AudioLDM2ProjectionModel"),
    "unet": tiny("AudioLDM2UNet2DConditionModel"),
}
# It gives its prompt to tokenizers of known classes only, and to others what is to be spoken.
family("AudioLDM2", MEL | LDM2, audio_length_in_s=4.0, transcription="a cat")

# Stable Audio 3


def same() -> torch.nn.Module:
    """Its autoencoder, without the zeros that keep what an untrained one decodes from depending on its latents."""
    vae = part("AutoencoderSAME")
    for weight in (p for p in vae.parameters() if not p.any()):
        torch.nn.init.normal_(weight, std=0.1)
    return vae


SOUND = torch.linspace(-1, 1, 64).reshape(1, 2, 32)
STABLE_3 = {"vae": same, "text_encoder": t5_gemma_encoder}
family("StableAudio3 StableAudio3AudioToAudio StableAudio3Inpaint", STABLE_3, duration=2.0)
family("StableAudio3AudioToAudio StableAudio3Inpaint", audio=SOUND)
family("StableAudio3Inpaint", mask_start_seconds=0.5, mask_end_seconds=1.0)
