"""VQAScore: would a vision-language model say yes, asked whether the image shows its prompt. Lin et al., 2404.01291."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rewards.towers.checkpoint import FromHub
from rewards.towers.qwen_vl import load_qwen_vl


class VqaScore(FromHub):
    """Probability of the wanted answer to whether an image shows its prompt, in [0, 1].

    Args:
        source: Qwen2-VL, Qwen2.5-VL or Qwen3-VL, hub id or local folder.
        question: what is asked; "{prompt}" in it becomes the prompt.
        answer: the wanted answer, one token.
        side: an image is looked at with about side x side pixels, in its own shape.
        revision: of the hub.
        dtype: what the model computes in.
        device: where to compute.

    Raises:
        OSError: the model is not there, or has no safetensors.
        ValueError: it is of another kind; the answer is more than one token.
    """

    differentiable = True
    licence = "Apache-2.0"

    def __init__(
        self,
        *,
        source: str = "Qwen/Qwen2.5-VL-3B-Instruct",
        question: str = 'Does this figure show "{prompt}"? Please answer Yes or No.',
        answer: str = "Yes",
        side: int = 448,
        revision: str | None = None,
        dtype: str = "bfloat16",
        device: str = "cpu",
    ) -> None:
        self.check_use((), question=question)
        self.device = device
        self._question = question
        self._vlm, checkpoint = load_qwen_vl(source, revision, side, dtype, device)
        ids = self._vlm.tokenizer(answer, add_special_tokens=False).input_ids
        if len(ids) != 1:
            raise ValueError(f"option 'answer' must be one token of the model, {answer!r} is {len(ids)}")
        self._answer = ids[0]
        self.checkpoints = (checkpoint,)

    @classmethod
    def check_use(cls, prompts: Sequence[str], **options: Any) -> None:
        """Refuse a question without the prompt, and what `FromHub` refuses."""
        super().check_use(prompts, **options)
        if "{prompt}" not in options.get("question", "{prompt}"):
            raise ValueError("option 'question' must have {prompt} in it")

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1], for B prompts; one image after the other."""
        return torch.stack([self._score(image, prompt) for image, prompt in zip(images, prompts, strict=True)])

    def _score(self, image: Tensor, prompt: str) -> Tensor:
        inputs = self._vlm.image_inputs(image, self._question.replace("{prompt}", prompt))
        logits = self._vlm.model(**inputs, use_cache=False, logits_to_keep=1).logits[0, -1]
        return (logits if logits.element_size() > 4 else logits.float()).softmax(-1)[self._answer]
