"""Human Preference Score v3: which image people prefer, by a Qwen2-VL with a head at a token of its own.

Ma et al., 2508.03789.

    image and instruction -> Qwen2-VL -> state at <|Reward|> -> head -> (mean, spread),    score = mean
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewards.towers.checkpoint import FromHub, describe, find_file, read_tensors
from rewards.towers.token_head import TokenHead, check_instruction

TOKEN = "<|Reward|>"
_PIXELS = 448 * 448


class Hpsv3(FromHub):
    """Human Preference Score v3; about 5 for Stable Diffusion 3, 8 for SDXL, 10 for FLUX.

    Args:
        instruction: text file with what the authors ask, from `hpsv3/dataset/data_collator_qwen.py` of
            github.com/MizzenAI/HPSv3; it has "{prompt}" where the prompt belongs, and "<|Reward|>".
        source: hub id, local folder, or the file of weights itself.
        base: the model that it was trained from, for its configuration and tokenizer; hub id or local folder.
        revision: of the weights on the hub.
        dtype: what the model computes in; the head is in float32.
        device: where to compute.

    Raises:
        OSError: a file is not there.
        ValueError: the weights have other keys or shapes, or the instruction lacks what it must have.
    """

    differentiable = True
    licence = "MIT"

    def __init__(
        self,
        *,
        instruction: Path,
        source: str = "MizzenAI/HPSv3",
        base: str = "Qwen/Qwen2-VL-7B-Instruct",
        revision: str | None = None,
        dtype: str = "bfloat16",
        device: str = "cpu",
    ) -> None:
        self.check_use((), instruction=instruction)
        self.device = device
        self._instruction = instruction.read_text()
        path = find_file(source, "HPSv3.safetensors", revision)
        self._model = TokenHead(
            base, (TOKEN,), read_tensors(path), make_head, "HPSv3", (_PIXELS, _PIXELS), dtype, device
        )
        self.checkpoints = (describe(source, path),)

    @classmethod
    def check_use(cls, prompts: Sequence[str], **options: Any) -> None:
        """Refuse an instruction that is none, and what `FromHub` refuses."""
        super().check_use(prompts, **options)
        if "instruction" in options:
            check_instruction(options["instruction"], "{prompt}", TOKEN)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1], for B prompts; one image after the other."""
        return torch.stack([self._score(image, prompt) for image, prompt in zip(images, prompts, strict=True)])

    def _score(self, image: Tensor, prompt: str) -> Tensor:
        return self._model(self._model.vlm.image_inputs(image, self._instruction.replace("{prompt}", prompt)))[0, 0]


def make_head(width: int) -> nn.Sequential:
    """Layers at places 0, 3 and 5; the dropout does nothing here."""
    return nn.Sequential(
        nn.Linear(width, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
    )
