"""CLIP and SigLIP: images and prompts as unit vectors of one space.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2103.00020; Zhai et al.,
"Sigmoid Loss for Language Image Pre-Training", 2303.15343. The models are transformers' own, frozen; preprocessing is
on tensors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoTokenizer, CLIPModel, SiglipModel

from rewards.towers.checkpoint import Checkpoint, describe_folder, find_folder, kind_of, load_pretrained
from rewards.towers.images import ImageTower, unit
from rewards.towers.pixels import AS_CLIP, AS_SIGLIP, Preparation
from rewards.towers.prompts import PromptEmbeddings
from rewards.towers.sharing import network

VIT_H_14: Mapping[str, Any] = {
    "vision_config": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "intermediate_size": 5120,
        "patch_size": 14,
        "image_size": 224,
        "hidden_act": "gelu",
    },
    "text_config": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "hidden_act": "gelu",
        "eos_token_id": 49407,
    },
    "projection_dim": 1024,
}
"""Arguments of `CLIPConfig` for CLIP H/14."""


class DualTower(ImageTower):
    """Images and prompts to unit vectors.

    Args:
        model: a frozen `CLIPModel` or `SiglipModel`.
        tokenizer: its tokenizer.
        prepare: images as it takes them.
        checkpoint: what it was read from.
    """

    def __init__(self, model: Any, tokenizer: Any, prepare: Preparation, checkpoint: Checkpoint) -> None:
        super().__init__(model, lambda pixels: model.get_image_features(pixels).pooler_output, prepare, checkpoint)
        self._tokenizer = tokenizer
        self.prompts = PromptEmbeddings(self._prompt)

    def cosines(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Cosine of each image [B, 3, H, W] with its own prompt, [B]."""
        return (self.images(images) * self.prompts(prompts)).sum(-1)

    def tokens(self, prompt: str) -> Tensor:
        """The prompt's tokens, [1, length], padded to the model's full length.

        SigLIP was trained so. No mask goes with them: SigLIP has none, and CLIP, which is causal and read at the first
        end of text, would not notice.
        """
        length = self.model.config.text_config.max_position_embeddings
        words = self._tokenizer([prompt], padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return words.input_ids.to(self.model.device)

    def _prompt(self, prompt: str) -> Tensor:
        return unit(self.model.get_text_features(self.tokens(prompt)).pooler_output)[0]


def load_dual(source: str, revision: str | None, dtype: str, device: str, tokenizer: str | None = None) -> DualTower:
    """A CLIP or SigLIP model by hub id or folder, and its tokenizer, from elsewhere if that is named.

    Raises:
        OSError: it is not there, or has no safetensors.
        ValueError: it is another kind of model, or its keys are not those of its kind.
    """
    return network(_load_dual, source, revision, dtype, device, tokenizer)


def _load_dual(source: str, revision: str | None, dtype: str, device: str, tokenizer: str | None) -> DualTower:
    folder = find_folder(source, revision)
    model, prepare = load_clip(folder, dtype, device)
    return DualTower(
        model, AutoTokenizer.from_pretrained(tokenizer or folder), prepare, describe_folder(source, folder)
    )


def load_clip(folder: Path, dtype: str, device: str) -> tuple[Any, Preparation]:
    """The model of a folder, whole and frozen, and how it takes images.

    Raises:
        OSError, ValueError: as `load_dual`.
    """
    kind = kind_of(folder)
    if kind == "siglip":
        return load_pretrained(SiglipModel, folder, dtype, device), AS_SIGLIP
    if kind == "clip":
        return load_pretrained(CLIPModel, folder, dtype, device), AS_CLIP
    raise ValueError(f"{folder} is a model of kind {kind!r}; CLIP and SigLIP are known")
