import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from rewards.hpsv3 import TOKEN, make_head
from rewards.video_align import TOKENS

from .weights import filled
from .words import save_letters

SPECIALS = [
    *("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "Yes", "No"),
    "<|video_pad|>",
]


def _config(words: int) -> Qwen2VLConfig:
    text = {
        "vocab_size": words,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
        "bos_token_id": 0,
        "eos_token_id": 3,
    }
    vision = {"depth": 2, "embed_dim": 8, "hidden_size": 16, "num_heads": 2, "patch_size": 56, "mlp_ratio": 2}
    places = {name: 2 + SPECIALS.index(f"<|{name.removesuffix('_token_id')}|>") for name in _PLACES}
    places |= {f"{kind}_token_id": 2 + SPECIALS.index(f"<|{kind}_pad|>") for kind in ("image", "video")}
    return Qwen2VLConfig(text_config=text, vision_config=vision, **places)


_PLACES = ("vision_start_token_id", "vision_end_token_id")


def save_qwen(folder: Path) -> Path:
    """A tiny Qwen2-VL as a folder in the hub's layout; its patches are large, so that there are few."""
    config = _config(save_letters(folder, *SPECIALS))
    filled(Qwen2VLForConditionalGeneration(config)).save_pretrained(folder)
    return folder


def save_hpsv3(folder: Path) -> dict[str, Any]:
    """A tiny HPSv3 by the names that its authors' version of transformers had; its options."""
    config = _config(save_letters(folder, *SPECIALS))
    config.save_pretrained(folder)
    config.text_config.vocab_size += 1
    model = Qwen2VLForConditionalGeneration(config)
    model.rm_head = make_head(16)
    tensors = {_old_name(key): tensor for key, tensor in filled(model).state_dict().items()}
    save_file(tensors, folder / "HPSv3.safetensors")
    (folder / "instruction.txt").write_text("rate {prompt} " + TOKEN + " end")
    return {"instruction": folder / "instruction.txt", "source": str(folder), "base": str(folder)}


def _old_name(key: str) -> str:
    return key.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


RANK, ALPHA = 2, 4
SCALES = {"VQ_mean": 0.1, "VQ_std": 2.0, "MQ_mean": -0.2, "MQ_std": 0.5, "TA_mean": 0.3, "TA_std": 1.5}


def save_video_align(folder: Path, outputs: int = 1) -> dict[str, Any]:
    """A tiny VideoReward as its authors' trainer saved it, whole and with its adapters apart; its options."""
    config = _config(save_letters(folder / "base", *SPECIALS))
    config.save_pretrained(folder / "base")
    config.text_config.vocab_size += len(TOKENS)
    model = Qwen2VLForConditionalGeneration(config)
    model.rm_head = nn.Linear(16, outputs, bias=False)
    (folder / "checkpoint-7").mkdir()
    torch.save(with_adapters(filled(model).state_dict()), folder / "checkpoint-7" / "model.pth")
    settings = {
        "data_config": {"fps": 2.0, "max_frame_pixels": 112 * 112},
        "model_config": {"output_dim": outputs},
        "peft_lora_config": {"lora_alpha": ALPHA, "use_rslora": False},
        "inference_config": SCALES,
    }
    (folder / "model_config.json").write_text(json.dumps(settings))
    (folder / "instruction.txt").write_text(f"rate {TOKENS[0]} move {TOKENS[1]} show {{text_prompt}} {TOKENS[2]} end")
    paths = {"source": str(folder), "base": str(folder / "base")}
    return {"instruction": folder / "instruction.txt", "frame_rate": 2.0, **paths}


def with_adapters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the names of peft and of transformers 4.45, with an adapter at each linear layer of the language model."""
    found = {}
    for key, tensor in tensors.items():
        name = f"base_model.model.{_old_name(key)}"
        if ".layers." in name and "norm" not in name and name.endswith(".weight"):
            layer = name.removesuffix(".weight")
            wave = torch.sin(torch.arange(float(tensor.shape[0] + tensor.shape[1])))
            found[f"{layer}.lora_A.default.weight"] = 0.1 * wave[: tensor.shape[1]].repeat(RANK, 1)
            found[f"{layer}.lora_B.default.weight"] = 0.1 * wave[-tensor.shape[0] :, None].repeat(1, RANK)
            name = f"{layer}.base_layer.weight"
        elif ".layers." in name and "norm" not in name:
            name = name.replace(".bias", ".base_layer.bias")
        found[name] = tensor
    return found
