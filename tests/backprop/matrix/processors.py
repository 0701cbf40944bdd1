"""Tiny processors of the real classes, for prompts with images."""

from typing import Any

import transformers

from .text import CHAT, WORDS, tokenizer


def qwen_vl_processor(name: str, length: int = 16) -> Any:
    """A Qwen2VLProcessor or Qwen3VLProcessor without its part for videos, which cannot be made without torchvision."""
    cls = getattr(transformers, name)
    processor = cls.__new__(cls)
    patch = 14 if name == "Qwen2VLProcessor" else 16
    size = {"shortest_edge": (2 * patch) ** 2, "longest_edge": (4 * patch) ** 2}
    processor.image_processor = transformers.Qwen2VLImageProcessorPil(size=size, patch_size=patch)
    processor.tokenizer = tokenizer(length)
    processor.chat_template = CHAT
    for part in ("image", "video", "vision_start", "vision_end"):
        mark = f"<|{part}_pad|>" if part in ("image", "video") else f"<|{part}|>"
        setattr(processor, f"{part}_token", mark)
        setattr(processor, f"{part}_token_id", WORDS.index(mark))
    return processor
