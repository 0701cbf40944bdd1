"""CLIP and SigLIP: images and prompts as unit vectors of one space.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2103.00020; Zhai et al.,
"Sigmoid Loss for Language Image Pre-Training", 2303.15343. The models are transformers' own, frozen; preprocessing is
on tensors.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, CLIPModel, SiglipModel

from rewards.towers.checkpoint import Checkpoint, describe, find_folder, load_pretrained
from rewards.towers.pixels import AS_CLIP, AS_SIGLIP, Preparation
from rewards.towers.prompts import PromptEmbeddings


class ImageTower:
    """Images to unit vectors.

    Args:
        model: a frozen `CLIPModel` or `SiglipModel`.
        prepare: images as it takes them.
        checkpoint: what it was read from.
    """

    def __init__(self, model: nn.Module, prepare: Preparation, checkpoint: Checkpoint) -> None:
        self.model: Any = model
        self.checkpoint = checkpoint
        self._prepare = prepare

    def images(self, images: Tensor) -> Tensor:
        """Embeddings of length 1, [B, D], of images [B, 3, H, W] in [0, 1]; float32, or float64 for a model in it."""
        return unit(self.model.get_image_features(self.pixels(images)).pooler_output)

    def pixels(self, images: Tensor) -> Tensor:
        """Images as the model takes them, [B, 3, S, S]."""
        return self._prepare(images, self.model.config.vision_config.image_size).to(self.model.dtype)


class DualTower(ImageTower):
    """Images and prompts to unit vectors.

    Args:
        model: a frozen `CLIPModel` or `SiglipModel`.
        tokenizer: its tokenizer.
        prepare: images as it takes them.
        checkpoint: what it was read from.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, prepare: Preparation, checkpoint: Checkpoint) -> None:
        super().__init__(model, prepare, checkpoint)
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
    folder = find_folder(source, revision)
    model, prepare = _load(folder, dtype, device)
    return DualTower(model, AutoTokenizer.from_pretrained(tokenizer or folder), prepare, describe(source, folder))


def load_images_only(source: str, revision: str | None, dtype: str, device: str) -> ImageTower:
    """The image half of a CLIP or SigLIP model.

    Raises:
        OSError, ValueError: as `load_dual`.
    """
    folder = find_folder(source, revision)
    model, prepare = _load(folder, dtype, "cpu")
    del model.text_model
    return ImageTower(model.to(device), prepare, describe(source, folder))


def unit(x: Tensor) -> Tensor:
    """x / |x| along the last dimension; float16 and bfloat16 become float32."""
    return nn.functional.normalize(x if x.element_size() > 4 else x.float(), dim=-1)


def _load(folder: Path, dtype: str, device: str) -> tuple[Any, Preparation]:
    kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    if kind not in ("clip", "siglip"):
        raise ValueError(f"{folder} is a model of kind {kind!r}; CLIP and SigLIP are known")
    if kind == "siglip":
        return load_pretrained(SiglipModel, folder, dtype, device), AS_SIGLIP
    return load_pretrained(CLIPModel, folder, dtype, device), AS_CLIP
