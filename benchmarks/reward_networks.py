"""Memory and time per image of the rewards' networks at their true sizes, on this machine's CPU.

python -m benchmarks.reward_networks [NAME ...]

Weights are constants: neither memory nor time depends on their values. Each network is measured in a process of its
own, with one thread: one image of 512 x 512 pixels, score alone and score with gradient. Times are the process's own
seconds, which other work on the machine changes little, the median of three after one to warm up; of the last network,
which is large, the first.
"""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import init_empty_weights
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from rewards import create
from rewards.towers.blip import Blip
from rewards.towers.checkpoint import load_strict
from rewards.towers.clip import VIT_H_14
from rewards.towers.pixels import AS_CLIP
from rewards.towers.qwen_vl import QwenVl

_REPEATS = 3
_LARGE = 2_000_000_000
"""Parameters from which on once is enough."""

_CLIP_L = {
    "vision_config": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "patch_size": 14,
    },
    "text_config": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "projection_dim": 768,
}

Score = Callable[[Tensor], Tensor]


def measure(name: str) -> str:
    """A row of the table: parameters, memory and times of one network."""
    torch.set_num_threads(1)
    score, parameters = BUILDERS[name]()
    repeats = 1 if parameters > _LARGE else _REPEATS
    images = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone = _seconds(lambda: score(images), repeats)
    before = _peak()
    leaf = images.requires_grad_()
    with_gradient = _seconds(lambda: torch.autograd.grad(score(leaf).sum(), leaf), repeats)
    sizes = f"{parameters / 1e6:,.0f} M | {before:.1f} | {_peak():.1f}"
    return f"| {name} | {sizes} | {alone:.2f} | {with_gradient:.2f} |"


def _seconds(run: Callable[[], object], repeats: int) -> float:
    if repeats > 1:
        run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def _peak() -> float:
    """Largest memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _filled(make: Callable[[], nn.Module], dtype: torch.dtype = torch.float32) -> tuple[Any, int]:
    """A network with all its weights the same, loaded as a checkpoint is; and their number."""
    with init_empty_weights():
        model = make()
    tensors = {key: torch.full(tensor.shape, 0.01, dtype=dtype) for key, tensor in model.state_dict().items()}
    return load_strict(model, tensors, "it"), sum(tensor.numel() for tensor in tensors.values())


def _built_in(name: str) -> tuple[Score, int]:
    reward = create(name)
    return lambda images: reward(images, [""]), 0 if name == "sharpness" else 3_400_000


def _clip(config: Mapping[str, Any]) -> tuple[Score, int]:
    model, parameters = _filled(lambda: CLIPModel(CLIPConfig(**config)))
    return lambda images: model.get_image_features(AS_CLIP(images, 224)).pooler_output.sum(1), parameters


def _dino() -> tuple[Score, int]:
    config = Dinov2Config(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, image_size=518, patch_size=14)
    model, parameters = _filled(lambda: Dinov2Model(config))
    return lambda images: model(AS_CLIP(images, 224)).pooler_output.sum(1), parameters


def _blip() -> tuple[Score, int]:
    model, parameters = _filled(Blip)
    tokens = torch.ones(1, 35, dtype=torch.long)
    return lambda images: model(AS_CLIP(images, 224), tokens, tokens).sum(1), parameters


def _qwen() -> tuple[Score, int]:
    words = ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>", "?"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="?"))
    tokenizer.add_special_tokens(words)
    text = {
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }
    config = Qwen2VLConfig(text_config=text, vision_config={"hidden_size": 1536}, image_token_id=0)
    model, parameters = _filled(lambda: Qwen2VLForConditionalGeneration(config), torch.bfloat16)
    vlm = QwenVl(model, PreTrainedTokenizerFast(tokenizer_object=tokenizer), "qwen2_vl", (448**2, 448**2))

    def score(images: Tensor) -> Tensor:
        found = model(**vlm.image_inputs(images[0], "?"), use_cache=False, logits_to_keep=1).logits
        return found[0, -1].float().softmax(-1)[:1]

    return score, parameters


BUILDERS: Mapping[str, Callable[[], tuple[Score, int]]] = {
    "none: sharpness": lambda: _built_in("sharpness"),
    "EfficientNet-Lite0: preference": lambda: _built_in("preference"),
    "DINOv2-base: image_similarity": _dino,
    "CLIP L/14: clip_score, aesthetic_v2": lambda: _clip(_CLIP_L),
    "CLIP H/14: pick_score, hpsv2": lambda: _clip(VIT_H_14),
    "BLIP L/16: image_reward": _blip,
    "Qwen2-VL-2B, bfloat16: vqa_score": _qwen,
}


def main(names: list[str]) -> None:
    """Print the table."""
    print("| network: rewards | parameters | GB, score | GB, gradient | s, score | s, gradient |")
    print("|---|---|---|---|---|---|")
    for name in names or BUILDERS:
        command = [sys.executable, "-c", f"from benchmarks.reward_networks import measure; print(measure({name!r}))"]
        print(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1],
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
