from pathlib import Path

from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from .weights import filled
from .words import save_letters


def save_clap(folder: Path, sampling_rate: int = 8000) -> Path:
    """A tiny CLAP as a folder in the hub's layout, which listens to 800 samples."""
    text = {
        "vocab_size": save_letters(folder),
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
    }
    audio = {
        "patch_embeds_hidden_size": 4,
        "hidden_size": 8,
        "depths": [1, 1],
        "num_hidden_layers": 2,
        "num_attention_heads": [2, 2],
        "spec_size": 32,
        "num_mel_bins": 8,
        "window_size": 4,
        "enable_fusion": False,
        "projection_dim": 8,
    }
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=8)
    filled(ClapModel(config)).save_pretrained(folder)
    extractor = ClapFeatureExtractor(
        feature_size=8,
        sampling_rate=sampling_rate,
        hop_length=40,
        max_length_s=800 / sampling_rate,
        fft_window_size=64,
        frequency_max=sampling_rate // 2,
    )
    extractor.save_pretrained(folder)
    return folder
