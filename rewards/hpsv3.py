"""Human Preference Score v3: which image people prefer, by a Qwen2-VL with a head at a token of its own.

Ma et al., 2508.03789.

    image and instruction -> Qwen2-VL -> state at <|Reward|> -> head -> (mean, spread),    score = mean
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, Qwen2VLForConditionalGeneration

from rewards.towers.checkpoint import FromHub, describe, find_file, load_strict, precision, read_tensors
from rewards.towers.qwen_vl import QwenVl, from_old_names

TOKEN = "<|Reward|>"
_SIDE = 448


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
        tensors = from_old_names(read_tensors(path))
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.add_special_tokens({"additional_special_tokens": [TOKEN]})
        self._token = tokenizer.convert_tokens_to_ids(TOKEN)
        config = AutoConfig.from_pretrained(base)
        config.text_config.vocab_size = len(tensors["model.language_model.embed_tokens.weight"])
        width = config.text_config.hidden_size
        with init_empty_weights():
            model = Qwen2VLForConditionalGeneration(config)
            model.rm_head = make_head(width)
        load_strict(model, tensors, "HPSv3").to(device, precision(dtype))
        self._head = model.rm_head.to(torch.float64 if precision(dtype) is torch.float64 else torch.float32)
        self._vlm = QwenVl(model, tokenizer, config.model_type, _SIDE)
        self.checkpoints = (describe(source, path),)

    @classmethod
    def check_use(cls, prompts: Sequence[str], **options: Any) -> None:
        """Refuse an instruction that is none, and what `FromHub` refuses."""
        super().check_use(prompts, **options)
        if "instruction" not in options:
            return
        file = options["instruction"].expanduser()
        text = file.read_text() if file.is_file() else ""
        if "{prompt}" not in text or TOKEN not in text:
            raise ValueError(f"option 'instruction': {str(file)!r} must be a text with {{prompt}} and {TOKEN} in it")

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1], for B prompts; one image after the other."""
        return torch.stack([self._score(image, prompt) for image, prompt in zip(images, prompts, strict=True)])

    def _score(self, image: Tensor, prompt: str) -> Tensor:
        inputs = self._vlm.inputs(image, self._instruction.replace("{prompt}", prompt))
        states = self._vlm.model.model(**inputs, use_cache=False).last_hidden_state[0]
        place = (inputs["input_ids"][0] == self._token).nonzero()[-1, 0]
        return self._head(states[place].to(self._head[0].weight.dtype))[0]


def make_head(width: int) -> nn.Sequential:
    """Layers at places 0, 3 and 5; the dropout does nothing here."""
    return nn.Sequential(
        nn.Linear(width, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
    )
