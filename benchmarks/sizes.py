"""What `sdo plan` says of published models, from configurations of their sizes; no weights, no network, no GPU.

    python -m benchmarks.sizes [--models sd15 sdxl sd35-medium flux-dev]

The configurations are those that the models' pages publish, written here; tokenizers are of letters, of the lengths
that the pipelines give to the text encoders. LoRA of rank 16, bfloat16, one kept step, a batch of one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.kept_graph import LearnedSamplingSettings
from sdo_ray.sizing.needs import Batches, image_operations, sampler_bytes
from sdo_ray.sizing.report import sizes_of_model

GIB = 2**30
_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}
_VAE16 = _VAE | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.1}
_CLIP_L = ("CLIPTextModel", {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12})
_BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
_T5 = {
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_layers": 24,
    "num_heads": 64,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}
_DDIM = ("DDIMScheduler", {"clip_sample": False})
_FLOW = ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0})
_UNET_XL = {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_SD3 = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 384,
    "dual_attention_layers": list(range(13)),
    "qk_norm": "rms_norm",
    "out_channels": 16,
    "in_channels": 16,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
}
_FLUX = {"guidance_embeds": True, "num_layers": 19, "num_single_layers": 38}
_WIDE_CLIP = ("CLIPTextModelWithProjection", _CLIP_L[1] | {"projection_dim": 768})

MODELS: dict[str, tuple[str, dict[str, tuple[str, dict[str, Any]] | int], dict[str, Any]]] = {
    "sd15": (
        "StableDiffusionPipeline",
        {
            "unet": (
                "UNet2DConditionModel",
                {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
            ),
            "vae": ("AutoencoderKL", _VAE),
            "text_encoder": _CLIP_L,
            "tokenizer": 77,
            "scheduler": _DDIM,
        },
        {"height": 512, "width": 512},
    ),
    "sdxl": (
        "StableDiffusionXLPipeline",
        {
            "unet": ("UNet2DConditionModel", _UNET_XL),
            "vae": ("AutoencoderKL", _VAE | {"force_upcast": False}),
            "text_encoder": _CLIP_L,
            "text_encoder_2": ("CLIPTextModelWithProjection", _BIG_G | {"projection_dim": 1280}),
            "tokenizer": 77,
            "tokenizer_2": 77,
            "scheduler": _DDIM,
        },
        {"height": 1024, "width": 1024},
    ),
    "sd35-medium": (
        "StableDiffusion3Pipeline",
        {
            "transformer": ("SD3Transformer2DModel", _SD3),
            "vae": ("AutoencoderKL", _VAE16),
            "text_encoder": _WIDE_CLIP,
            "text_encoder_2": ("CLIPTextModelWithProjection", _BIG_G | {"projection_dim": 1280}),
            "text_encoder_3": ("T5EncoderModel", _T5),
            "tokenizer": 77,
            "tokenizer_2": 77,
            "tokenizer_3": 256,
            "scheduler": _FLOW,
        },
        {"height": 1024, "width": 1024},
    ),
    "flux-dev": (
        "FluxPipeline",
        {
            "transformer": ("FluxTransformer2DModel", _FLUX),
            "vae": ("AutoencoderKL", _VAE16),
            "text_encoder": _CLIP_L,
            "text_encoder_2": ("T5EncoderModel", _T5),
            "tokenizer": 77,
            "tokenizer_2": 512,
            "scheduler": _FLOW,
        },
        {"height": 1024, "width": 1024},
    ),
}
"""Name -> pipeline class, its parts (a tokenizer by its length), sizes of the call."""


def write(name: str, directory: Path) -> None:
    """A directory in diffusers' format without weights."""
    kind, parts, _ = MODELS[name]
    index: dict[str, Any] = {"_class_name": kind, "_diffusers_version": diffusers.__version__}
    for part, made in parts.items():
        place = directory / part
        if isinstance(made, int):
            _tokenizer(made).save_pretrained(place)
            index[part] = ["transformers", "PreTrainedTokenizerFast"]
            continue
        cls, config = made
        library = diffusers if hasattr(diffusers, cls) else transformers
        index[part] = [library.__name__, cls]
        place.mkdir(parents=True)
        if library is transformers:
            getattr(transformers, cls).config_class(**config).save_pretrained(place)
        else:
            file = "scheduler_config.json" if part == "scheduler" else "config.json"
            (place / file).write_text(json.dumps({"_class_name": cls, **config}))
    (directory / "model_index.json").write_text(json.dumps(index))


def _tokenizer(length: int) -> Any:
    letters = ["<pad>", "<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz "]
    backend = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(letters)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    marks = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=length, **marks)


def main() -> None:
    """Find the sizes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    given = parser.parse_args()
    columns = ["model", "blocks", "weights, GiB", "retain", "recompute", "a step, 10^12", "an update / plain, N = 20"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    for name in given.models:
        with TemporaryDirectory() as place:
            write(name, Path(place))
            lora = {"rank": 16, "targets": ["to_q", "to_k", "to_v", "to_out.0"]}
            model = ModelSettings.model_validate({"base": place, "dtype": "bfloat16", "lora": lora})
            sampling = LearnedSamplingSettings(num_inference_steps=20, options=MODELS[name][2])
            found = sizes_of_model(model, sampling)
        for blocks, sizes in found.items():
            ways = [Batches(1, 1, 20, 1, graph) for graph in ("retain", "recompute")]
            weights = sum(sizes.weights.values())
            cells = [f"{sampler_bytes(sizes, how)[1] / GIB:.2f}" for how in ways]
            shares = [f"{learning / plain:.2f}" for plain, learning in (image_operations(sizes, how) for how in ways)]
            row = [name, "checkpointed" * blocks, f"{weights / GIB:.2f}", *cells, f"{sizes.step.forward / 1e12:.2f}"]
            print("| " + " | ".join([*row, " / ".join(shares)]) + " |", flush=True)


if __name__ == "__main__":
    main()
