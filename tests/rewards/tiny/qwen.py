from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from rewards.hpsv3 import TOKEN, make_head

from .weights import filled
from .words import save_letters

SPECIALS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "Yes", "No"]


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
    places["image_token_id"] = 2 + SPECIALS.index("<|image_pad|>")
    return Qwen2VLConfig(text_config=text, vision_config=vision, video_token_id=words - 1, **places)


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
