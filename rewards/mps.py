"""MPS, the Multi-dimensional Preference Score: which image people prefer, under a condition. Zhang et al., 2405.14705.

Notation
    T, t    projected states of the prompt's 77 positions, and its pooled one;  C  of the condition;  V  of the image
    w_i     max over j of <T_i, C_j>, over its largest value for this prompt
    y       first state of cross(V, T where w_i > threshold)                    towers/cross.py

    score = exp(logit_scale) cos(t, y)

The authors divide w by the largest value of a whole batch, so that a score depends on its neighbours; here it is each
prompt's own.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPConfig, CLIPModel

from rewards.towers.checkpoint import FromHub, describe, find_file, load_strict, precision, read_tensors
from rewards.towers.clip import VIT_H_14, DualTower
from rewards.towers.cross import CrossModel
from rewards.towers.images import unit
from rewards.towers.pixels import AS_CLIP
from rewards.towers.prompts import PromptEmbeddings

CONDITION = (
    "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, instance, "
    "texture, quantity, attributes, position, number, location, word, things."
)
"""What overall preference looks at: the authors' text for it."""


class Mps(FromHub):
    """Multi-dimensional Preference Score, overall; no usual range has been published.

    Args:
        threshold: of w. 0.3 in the authors' evaluation, 0.01 in their model's code.
        source: hub id, local folder or file of weights as tensors; the authors' own file is a pickled program.
        tokenizer: hub id or local folder of CLIP's tokenizer.
        revision: of the weights on the hub.
        dtype: what the network computes in.
        device: where to compute.

    Raises:
        OSError: the weights are not there.
        ValueError: they have other keys or shapes.
    """

    differentiable = True
    licence = "MIT"
    architecture: ClassVar[Mapping[str, Any]] = VIT_H_14
    """Arguments of `CLIPConfig`."""
    cross: ClassVar[Mapping[str, int]] = {}
    """Arguments of `CrossModel`."""

    def __init__(
        self,
        *,
        threshold: float = 0.3,
        source: str = "RE-N-Y/mpsv1",
        tokenizer: str = "openai/clip-vit-large-patch14",
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        if not 0 <= threshold < 1:
            raise ValueError(f"option 'threshold' must be from 0 to below 1, got {threshold}")
        self.device = device
        self._threshold = threshold
        path = find_file(source, "model.safetensors", revision)
        with init_empty_weights():
            parts = nn.ModuleDict(
                {"model": CLIPModel(CLIPConfig(**self.architecture)), "cross_model": CrossModel(**self.cross)}
            )
        tensors = {key.removeprefix("mps."): tensor for key, tensor in read_tensors(path).items()}
        load_strict(parts, tensors, "MPS").to(device, precision(dtype))
        checkpoint = describe(source, path)
        self._clip = DualTower(parts["model"], AutoTokenizer.from_pretrained(tokenizer), AS_CLIP, checkpoint)
        self._cross = parts["cross_model"]
        self._texts = PromptEmbeddings(self._text)
        self.checkpoints = (checkpoint,)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1], for B prompts."""
        model = self._clip.model
        pixels = self._clip.pixels(images)
        V = model.visual_projection(model.vision_model(pixels).last_hidden_state)
        texts = self._texts(prompts)
        T, t = texts[:, :-1], texts[:, -1]
        w = (T @ self._texts([CONDITION])[0, :-1].T).amax(-1)
        visible = w / w.amax(-1, keepdim=True) > self._threshold
        y = self._cross(V, T, visible)[:, 0]
        return model.logit_scale.exp().to(images) * (unit(t) * unit(y)).sum(-1)

    def _text(self, prompt: str) -> Tensor:
        """All projected states of a prompt, and its pooled one as the last row, [L + 1, D]."""
        model = self._clip.model
        found = model.text_model(self._clip.tokens(prompt))
        return model.text_projection(torch.cat([found.last_hidden_state[0], found.pooler_output]))
