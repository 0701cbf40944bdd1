"""Tiny models of transformers' classes for sound: text encoders that hear as well, and vocoders."""

import torch
import transformers

from .text import WIDTH, WORDS

_TRANSFORMER = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
_CLAP_TEXT = _TRANSFORMER | {"vocab_size": len(WORDS), "projection_dim": WIDTH, "pad_token_id": 0}
_CLAP_AUDIO = {
    "spec_size": 32,
    "window_size": 4,
    "num_mel_bins": 8,
    "patch_size": 4,
    "patch_embeds_hidden_size": 8,
    "patch_embed_input_channels": 1,
    "depths": [1, 1],
    "num_attention_heads": [2, 2],
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "projection_dim": WIDTH,
}


def clap_text() -> torch.nn.Module:
    """CLAP's text encoder."""
    return transformers.ClapTextModelWithProjection(transformers.ClapTextConfig(**_CLAP_TEXT))


def clap() -> torch.nn.Module:
    """CLAP, whose text encoder and audio encoder end in one space."""
    config = transformers.ClapConfig(text_config=_CLAP_TEXT, audio_config=_CLAP_AUDIO, projection_dim=WIDTH)
    return transformers.ClapModel(config)


def gpt2() -> torch.nn.Module:
    """GPT-2, for prompt embeddings that are generated one after another."""
    config = transformers.GPT2Config(n_embd=WIDTH, n_layer=1, n_head=2, vocab_size=len(WORDS), n_positions=64)
    config.max_new_tokens = 2
    return transformers.GPT2LMHeadModel(config)


def vocoder(initializer_range: float = 0.01) -> torch.nn.Module:
    """HiFi-GAN, from spectra of eight bands to four samples for each; as it is made, next to silent."""
    config = transformers.SpeechT5HifiGanConfig(
        model_in_dim=8,
        sampling_rate=16,
        upsample_initial_channel=8,
        upsample_rates=[2, 2],
        upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]],
        normalize_before=False,
        initializer_range=initializer_range,
    )
    return transformers.SpeechT5HifiGan(config)
