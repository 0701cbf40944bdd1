"""A model of published size with random weights, and settings to align it: a whole run on a GPU without downloads.

    python -m benchmarks.whole_run DIRECTORY [--model sdxl] [--device cuda] [--size tiny]
    sdo align DIRECTORY/settings.yaml

Denoiser and decoder are those of `benchmarks.models`, in bfloat16 on a GPU; the text encoders have their widths and two
layers, the tokenizer reads single letters. The reward is darkness, which any weights can learn, so that it must rise.
"""

from __future__ import annotations

import argparse
import string
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from benchmarks.models import MODELS

TOKENS = 8
"""What the tokenizer gives at most: prompts are cut after six letters."""

ENCODERS = {
    "sd15": {"text_encoder": CLIPTextModel},
    "sdxl": {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection},
}
"""Model -> its text encoders."""

WIDTHS = {"sd15": (768,), "sdxl": (768, 1280)}
TINY_WIDTHS = {"sd15": (32,), "sdxl": (16, 16)}


def save_model(name: str, directory: Path, *, device: str, tiny: bool) -> None:
    """The pipeline with text encoders, in the format of the hub."""
    pipeline = MODELS[name]("float32" if tiny else "bfloat16", device, tiny).pipeline
    parts: dict[str, Any] = {}
    for (part, kind), width in zip(ENCODERS[name].items(), (TINY_WIDTHS if tiny else WIDTHS)[name], strict=True):
        parts[part] = _encoder(kind, width).to(pipeline.unet.dtype)
        parts[part.replace("text_encoder", "tokenizer")] = _tokenizer()
    checker = {"requires_safety_checker": False} if name == "sd15" else {}
    type(pipeline)(**pipeline.components | parts, **checker).save_pretrained(directory)


def settings(name: str, directory: Path, *, device: str, tiny: bool) -> dict[str, Any]:
    """Of four updates of eight images."""
    share = 0.0 if device == "cpu" else 1.0
    return {
        "run": {"name": name, "storage": str(directory / "runs"), "seed": 3},
        "model": {
            "base": str(directory / "model"),
            "dtype": "float32" if tiny else "bfloat16",
            "lora": {"rank": 8, "alpha": 8.0, "targets": ["to_q", "to_k", "to_v", "to_out.0"]},
        },
        "prompts": {"train": str(directory / "prompts.txt")},
        "sampling": {"num_inference_steps": 20, "guidance_scale": 5.0},
        "plan": {"name": "sdo", "options": {"K": 1}},
        "rewards": {"terms": [{"name": "brightness", "weight": -1.0, "num_gpus": 0.1 * share}]},
        "samplers": {"count": 1, "batch_size": 4, "num_gpus": 0.5 * share},
        "trainers": {"count": 1, "num_gpus": 0.3 * share},
        "training": {"updates": 4, "batch_size": 8, "learning_rate": 0.001},
        "evaluation": {
            "prompts": str(directory / "heldout.txt"),
            "num_prompts": 4,
            "evaluators": [{"name": "saturation"}],
        },
        "tracking": {"experiment": "whole-run", "preview_every": 2, "preview_prompts": ["a"]},
    }


def write(name: str, directory: Path, *, device: str, tiny: bool) -> Path:
    """Model, prompts and settings; returns the settings' path."""
    directory.mkdir(parents=True, exist_ok=True)
    save_model(name, directory / "model", device=device, tiny=tiny)
    letters = string.ascii_lowercase
    (directory / "prompts.txt").write_text("\n".join(letters[:16]) + "\n")
    (directory / "heldout.txt").write_text("\n".join(letters[16:20]) + "\n")
    path = directory / "settings.yaml"
    path.write_text(yaml.safe_dump(settings(name, directory, device=device, tiny=tiny)))
    return path


def _encoder(kind: Any, width: int) -> torch.nn.Module:
    end = 2 * len(string.ascii_letters) + 1
    tokens = {"vocab_size": end + 1, "bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    sizes = {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": 2, "num_attention_heads": 8}
    encoder: torch.nn.Module = kind(
        CLIPTextConfig(**sizes, **tokens, max_position_embeddings=TOKENS, projection_dim=width)
    )
    return encoder


def _tokenizer() -> CLIPTokenizer:
    words = [*string.ascii_letters, *(f"{c}</w>" for c in string.ascii_letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=TOKENS)


def main() -> None:
    """Write, and say what comes next."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--model", choices=ENCODERS, default="sd15")
    parser.add_argument("--size", choices=("published", "tiny"), default="published")
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    path = write(given.model, given.directory.absolute(), device=given.device, tiny=given.size == "tiny")
    print(f"sdo align {path}")


if __name__ == "__main__":
    main()
