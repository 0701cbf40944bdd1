"""BLIP's image encoder and its text encoder that looks at the image: what ImageReward and CycleReward are built on.

Li et al., "BLIP: Bootstrapping Language-Image Pre-training", 2201.12086. The classes are transformers' own; the
checkpoints have the names of BLIP's authors, which is what the map here is for.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from rewards.towers.checkpoint import CONSTANTS, load_strict, precision
from rewards.towers.pixels import AS_CLIP
from rewards.towers.prompts import PromptEmbeddings

_VISION = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "norm": "post_layernorm",
}
_VISION_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
_UNUSED = ("blip.vision_proj.", "blip.text_proj.")


class Blip(nn.Module):
    """Image and prompt to one vector: the text encoder's first state, having looked at the image.

    Args:
        vision: arguments of `BlipVisionConfig`.
        text: arguments of `BlipTextConfig`.
    """

    VISION: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 16,
        "layer_norm_eps": 1e-6,
    }
    """ViT-L/16."""

    TEXT: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 30524,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "encoder_hidden_size": 1024,
        "is_decoder": True,  # builds the cross attention
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    }
    """BERT base with two more words."""

    def __init__(self, vision: Mapping[str, Any] = VISION, text: Mapping[str, Any] = TEXT) -> None:
        super().__init__()
        self.vision = BlipVisionModel(BlipVisionConfig(**vision))
        self.text = BlipTextModel(BlipTextConfig(**text), add_pooling_layer=False)

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """[B, D] of pixels [B, 3, S, S], tokens and their mask [B, length]."""
        states = self.vision(pixels).last_hidden_state
        # `is_decoder=False`: every word sees every other.
        return self.text(
            input_ids=tokens,
            attention_mask=mask,
            encoder_hidden_states=states,
            encoder_attention_mask=torch.ones(states.shape[:2], dtype=mask.dtype, device=mask.device),
            is_decoder=False,
        ).last_hidden_state[:, 0]


class BlipTower:
    """Images and prompts to vectors.

    Args:
        tensors: of a checkpoint, by its authors' names, without the head.
        tokenizer: hub id or local folder of BERT's tokenizer.
        length: to which prompts are padded and cut, in tokens.
        dtype: what it computes in.
        device: where.
        model: makes the empty network.

    Raises:
        ValueError: other keys or shapes.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        tokenizer: str,
        length: int,
        dtype: str,
        device: str,
        model: type[Blip] = Blip,
    ) -> None:
        with init_empty_weights():
            self.model = model()
        load_strict(self.model, from_blip(tensors), "BLIP").to(device, precision(dtype))
        self._tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        self._length, self._device = length, device
        self._tokens = PromptEmbeddings(self._tokenized)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Vectors, [B, D], of images [B, 3, H, W] in [0, 1] and B prompts; float32, or float64 for a model in it."""
        pixels = AS_CLIP(images, self.model.vision.config.image_size).to(self.model.vision.dtype)
        tokens, mask = self._tokens(prompts).unbind(1)
        found = self.model(pixels, tokens, mask)
        return found if found.element_size() > 4 else found.float()

    def _tokenized(self, prompt: str) -> Tensor:
        """Tokens and mask, [2, length]."""
        words = self._tokenizer(
            [prompt], padding="max_length", truncation=True, max_length=self._length, return_tensors="pt"
        )
        return torch.cat([words.input_ids, words.attention_mask]).to(self._device)


def from_blip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of `Blip` by its names.

    Args:
        tensors: by the names of BLIP's authors, under `blip.`; constants and unused projections are left out.

    Raises:
        ValueError: a name that BLIP does not have.
    """
    return dict(
        pair
        for key, tensor in tensors.items()
        if not key.endswith(CONSTANTS) and not key.startswith(_UNUSED)
        for pair in _renamed(key, tensor)
    )


def _renamed(key: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if key.startswith("blip.text_encoder."):
        yield f"text.{key.removeprefix('blip.text_encoder.')}", tensor
        return
    name = key.removeprefix("blip.visual_encoder.")
    stem, _, kind = name.rpartition(".")
    if block := _BLOCK.fullmatch(name):
        number, part, kind = block.groups()
        if part in _VISION_BLOCK:
            yield f"vision.encoder.layers.{number}.{_VISION_BLOCK[part]}.{kind}", tensor
            return
    elif name in _VISION:
        yield f"vision.{_VISION[name]}", tensor
        return
    elif stem in _VISION:
        yield f"vision.{_VISION[stem]}.{kind}", tensor
        return
    raise ValueError(f"this is no checkpoint of BLIP: it has {key!r}")
