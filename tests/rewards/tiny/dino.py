from pathlib import Path

from transformers import Dinov2Config, Dinov2Model

from .weights import filled


def save_dino(folder: Path) -> Path:
    """A tiny DINOv2 as a folder in the hub's layout."""
    config = Dinov2Config(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    filled(Dinov2Model(config)).save_pretrained(folder)
    return folder
