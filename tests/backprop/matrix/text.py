"""Tiny text encoders of the real classes, and one local tokenizer for all of them."""

from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WIDTH = 32
# What stands for images and turns in prompts of vision-language models.
MARKS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|im_start|>", "<|im_end|>"]
WORDS = ["<pad>", "<s>", "</s>", "<unk>", *MARKS, *"abcdefghijklmnopqrstuvwxyz0123456789 .,:;\"'()<>|_-{}[]/"]
CHAT = """{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}
{{- c['text'] if c['type'] == 'text' else '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- endfor %}{% endif %}{% endfor %}"""


MARK_IDS = {
    f"{name}_token_id": WORDS.index(mark)
    for name, mark in zip(("vision_start", "vision_end", "image", "video"), MARKS, strict=False)
}


def tokenizer(length: int = 16) -> PreTrainedTokenizerFast:
    """Characters, between a start and an end token."""
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=MARKS,
        model_max_length=length,
        chat_template=CHAT,
    )


_DECODER = {
    "vocab_size": len(WORDS),
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 512,
}
_T5 = {"vocab_size": len(WORDS), "d_model": WIDTH, "d_kv": 16, "d_ff": WIDTH, "num_layers": 2, "num_heads": 2}
_CLIP = {
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "projection_dim": WIDTH,
}
_CLIP_TEXT = _CLIP | {
    "vocab_size": len(WORDS),
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "max_position_embeddings": 77,
}
_VISION = {"patch_size": 8, "image_size": 32, "num_channels": 3}


def _qwen_vl(config: Any, **more: Any) -> Any:
    text = {k: v for k, v in _DECODER.items() if k != "head_dim"} | {
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
    }
    vision = {"depth": 1, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_heads": 2, "out_hidden_size": WIDTH}
    return config(text_config=text, vision_config=vision | more, **MARK_IDS)


def _qwen2_vl() -> Any:
    text = _qwen_vl(transformers.Qwen2_5_VLConfig).text_config.to_dict() | {"model_type": "qwen2_vl_text"}
    vision = {"depth": 1, "embed_dim": WIDTH, "hidden_size": WIDTH, "num_heads": 2, "mlp_ratio": 1}
    return transformers.Qwen2VLConfig(text_config=text, vision_config=vision, **MARK_IDS)


def _qwen3_vl() -> Any:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    vision = {"depth": 1, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_heads": 2, "out_hidden_size": WIDTH}
    return transformers.Qwen3VLConfig(
        text_config=_DECODER | {"rope_parameters": rope},
        vision_config=vision | {"deepstack_visual_indexes": [0]},
        **MARK_IDS,
    )


def _mistral3() -> Any:
    return transformers.Mistral3Config(
        text_config=transformers.MistralConfig(**_DECODER),
        vision_config=transformers.PixtralVisionConfig(
            **{k: v for k, v in _CLIP.items() if k != "projection_dim"}, **_VISION, head_dim=16
        ),
    )


def _t5_gemma() -> Any:
    module = transformers.T5GemmaModuleConfig(**_DECODER)
    return transformers.T5GemmaConfig(encoder=module, decoder=module, is_encoder_decoder=False)


def _t5_gemma_2() -> Any:
    encoder = transformers.T5Gemma2EncoderConfig(
        text_config=_DECODER, vision_config=_CLIP | _VISION, mm_tokens_per_image=4
    )
    decoder = transformers.T5Gemma2DecoderConfig(**_DECODER)
    return transformers.T5Gemma2Config(
        encoder=encoder, decoder=decoder, image_token_index=WORDS.index(MARKS[2])
    ).encoder


def encoder(name: str, **changes: Any) -> torch.nn.Module:
    """A tiny model of the transformers class `name`, with `changes` to its configuration.

    Raises:
        KeyError: no recipe for this class.
    """
    config = {
        "CLIPTextModel": lambda: transformers.CLIPTextConfig(**_CLIP_TEXT),
        "CLIPTextModelWithProjection": lambda: transformers.CLIPTextConfig(**_CLIP_TEXT),
        "CLIPVisionModel": lambda: transformers.CLIPVisionConfig(**_CLIP, **_VISION),
        "CLIPVisionModelWithProjection": lambda: transformers.CLIPVisionConfig(**_CLIP, **_VISION),
        "SiglipVisionModel": lambda: transformers.SiglipVisionConfig(**_CLIP, **_VISION),
        "T5EncoderModel": lambda: transformers.T5Config(**_T5),
        "UMT5EncoderModel": lambda: transformers.UMT5Config(**_T5),
        "BertModel": lambda: transformers.BertConfig(
            **{k: v for k, v in _DECODER.items() if k not in ("head_dim", "num_key_value_heads")}
        ),
        "LlamaModel": lambda: transformers.LlamaConfig(**_DECODER),
        "LlamaForCausalLM": lambda: transformers.LlamaConfig(**_DECODER),
        "GemmaModel": lambda: transformers.GemmaConfig(**_DECODER),
        "Gemma3ForConditionalGeneration": lambda: transformers.Gemma3Config(
            text_config=_DECODER, vision_config=_CLIP | _VISION, mm_tokens_per_image=4
        ),
        "Gemma2Model": lambda: transformers.Gemma2Config(**_DECODER),
        "GlmModel": lambda: transformers.GlmConfig(**_DECODER),
        "Qwen3Model": lambda: transformers.Qwen3Config(**_DECODER),
        "Qwen3ForCausalLM": lambda: transformers.Qwen3Config(**_DECODER),
        "SmolLM3ForCausalLM": lambda: transformers.SmolLM3Config(**_DECODER),
        "Qwen2_5_VLForConditionalGeneration": lambda: _qwen_vl(transformers.Qwen2_5_VLConfig),
        "Qwen2VLForConditionalGeneration": _qwen2_vl,
        "Qwen3VLForConditionalGeneration": _qwen3_vl,
        "Qwen3VLModel": _qwen3_vl,
        "Mistral3ForConditionalGeneration": _mistral3,
        "Mistral3Model": _mistral3,
        "Siglip2VisionModel": lambda: transformers.Siglip2VisionConfig(**_CLIP, patch_size=8, num_patches=16),
        "Qwen2_5_VLTextModel": lambda: _qwen_vl(transformers.Qwen2_5_VLConfig).text_config,
        "T5GemmaEncoderModel": _t5_gemma,
        "T5Gemma2Encoder": _t5_gemma_2,
    }[name]()
    config.get_text_config().update(changes)
    return getattr(transformers, name)(config)


def t5_gemma_encoder() -> torch.nn.Module:
    """The encoder by itself, a class that transformers does not export."""
    inner: torch.nn.Module = encoder("T5GemmaEncoderModel").get_submodule("encoder")
    return inner
