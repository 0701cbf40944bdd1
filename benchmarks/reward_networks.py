"""Memory and time of the rewards' networks at their true sizes, on this machine's CPU.

python -m benchmarks.reward_networks [NAME ...]     a network for each family of rewards
python -m benchmarks.reward_networks --sharing      three rewards on one CLIP: an actor each, and one that they share

Weights are constants: neither memory nor time depends on their values. Each network is measured in a process of its
own, with one thread: one image of 512 x 512 pixels, a sound of ten seconds, or a video of two, 33 frames of 480 x 832
pixels; score alone and score with gradient. Times are the process's own seconds, which other work on the machine
changes little, the median of three after one to warm up; of the last networks, which are large, the first. Memory is
the process's largest, what it imports included.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from rewards import create
from rewards.service import RewardActor
from rewards.shared_service import Member, SharedActor
from rewards.towers.blip import Blip
from rewards.towers.checkpoint import frozen, load_strict
from rewards.towers.clip import VIT_H_14
from rewards.towers.pixels import AS_CLIP, AS_SIGLIP
from rewards.towers.qwen_vl import QwenVl
from rewards.towers.sound import LogMel
from rewards.towers.token_head import TokenHead
from rewards.video_align import TOKENS, frame_places

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
    images = torch.rand(_SHAPES.get(name, (1, 3, 512, 512)), generator=torch.Generator().manual_seed(0))
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


def _siglip() -> tuple[Score, int]:
    config = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
    )
    model, parameters = _filled(lambda: SiglipVisionModel(config))
    return lambda images: model(AS_SIGLIP(images, 384)).pooler_output.sum(1), parameters


def _clap() -> tuple[Score, int]:
    model = frozen(ClapModel(ClapConfig()))  # small, and with constants that no checkpoint has
    parameters = sum(tensor.numel() for tensor in model.parameters())
    mel = LogMel(ClapFeatureExtractor(), "cpu")
    return lambda sounds: model.get_audio_features(mel(sounds[:, 0])[:, None]).pooler_output.sum(1), parameters


def _qwen_2b() -> tuple[Qwen2VLConfig, PreTrainedTokenizerFast]:
    words = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>", "?"]
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
    config = Qwen2VLConfig(text_config=text, vision_config={"hidden_size": 1536}, image_token_id=0, video_token_id=1)
    return config, PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")


def _qwen() -> tuple[Score, int]:
    config, tokenizer = _qwen_2b()
    model, parameters = _filled(lambda: Qwen2VLForConditionalGeneration(config), torch.bfloat16)
    vlm = QwenVl(model, tokenizer, "qwen2_vl", (448**2, 448**2))

    def score(images: Tensor) -> Tensor:
        found = model(**vlm.image_inputs(images[0], "?"), use_cache=False, logits_to_keep=1).logits
        return found[0, -1].float().softmax(-1)[:1]

    return score, parameters


def _video_align() -> tuple[Score, int]:
    config, tokenizer = _qwen_2b()
    with init_empty_weights():
        network = nn.ModuleDict({"model": Qwen2VLModel(config), "rm_head": nn.Linear(1536, 1, bias=False)})
    tensors = {key: torch.full(x.shape, 0.01, dtype=torch.bfloat16) for key, x in network.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        head = network["rm_head"]
        pixels = (128 * 28**2, 448**2)
        model = TokenHead(folder, TOKENS, tensors, lambda _: head, "it", pixels, "bfloat16", "cpu")
    asked = "? " * 500 + "".join(TOKENS)

    def score(videos: Tensor) -> Tensor:
        frames = videos[0, frame_places(videos.shape[1], 2 / 16)]  # its authors look at two of a second's
        return model(model.vlm.video_inputs(frames, asked)).sum(0)

    return score, sum(x.numel() for x in tensors.values())


_SHAPES = {
    "CLAP, HTSAT-unfused: clap_score": (1, 1, 480_000),
    "Qwen2-VL-2B, bfloat16, 4 frames: video_align": (1, 33, 3, 480, 832),
}
"""Of what is not an image of 512 x 512 pixels."""

BUILDERS: Mapping[str, Callable[[], tuple[Score, int]]] = {
    "none: sharpness": lambda: _built_in("sharpness"),
    "EfficientNet-Lite0: preference": lambda: _built_in("preference"),
    "DINOv2-base: image_similarity": _dino,
    "CLAP, HTSAT-unfused: clap_score": _clap,
    "CLIP L/14: clip_score, aesthetic_v2": lambda: _clip(_CLIP_L),
    "SigLIP so400m, 384 pixels: aesthetic_v25": _siglip,
    "CLIP H/14: pick_score, hpsv2": lambda: _clip(VIT_H_14),
    "BLIP L/16: image_reward": _blip,
    "Qwen2-VL-2B, bfloat16: vqa_score": _qwen,
    "Qwen2-VL-2B, bfloat16, 4 frames: video_align": _video_align,
}


def measure_sharing(shared: bool) -> str:
    """A row: `clip_score` and the two aesthetic ones on one CLIP L/14, an image, scores with gradients."""
    images = np.random.default_rng(0).random((1, 3, 512, 512), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        options = _write_clip(Path(folder))
        wanted, texts = dict.fromkeys(options, True), {key: [""] for key in options}
        if shared:
            one = SharedActor({key: Member(key, given) for key, given in options.items()}, 1, "cpu")
            seconds = _seconds(lambda: one.score_together([texts], wanted, [[]], images), _REPEATS)
        else:
            actors = [RewardActor(key, given, 1, "cpu") for key, given in options.items()]
            seconds = _seconds(lambda: [actor.score(images, [""], True) for actor in actors], _REPEATS)
    return f"| {'one, shared' if shared else 'three'} | {_peak():.1f} | {seconds:.2f} |"


def _write_clip(folder: Path) -> dict[str, dict[str, Any]]:
    """A CLIP L/14 and the heads of two aesthetic rewards; the options of all three."""
    words = {word: number for number, word in enumerate(["a</w>", "<|startoftext|>", "<|endoftext|>"])}
    CLIPTokenizer(words, []).save_pretrained(folder)
    _filled(lambda: CLIPModel(CLIPConfig(**_CLIP_L)))[0].save_pretrained(folder)
    torch.save({"weight": torch.ones(1, 768), "bias": torch.ones(1)}, folder / "v1.pth")
    sizes = {0: (1024, 768), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
    layers = {f"layers.{i}.weight": torch.full(size, 0.01) for i, size in sizes.items()}
    biases = {f"layers.{i}.bias": torch.zeros(size[0]) for i, size in sizes.items()}
    torch.save(layers | biases, folder / "v2.pth")
    source = {"source": str(folder)}
    heads = {f"aesthetic_{name}": source | {"weights": folder / f"{name}.pth"} for name in ("v1", "v2")}
    return {"clip_score": source, **heads}


def _rows(calls: Sequence[str]) -> None:
    """Print what each call gives in a process of its own."""
    for call in calls:
        command = [sys.executable, "-c", f"from benchmarks.reward_networks import *; print({call})"]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(found.strip().splitlines()[-1], flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BUILDERS)}; all if none is given")
    parser.add_argument("--sharing", action="store_true", help="rewards that share an actor instead")
    given = parser.parse_args()
    if given.sharing:
        print("| actors | GB | s |\n|---|---|---|")
        _rows([f"measure_sharing({shared})" for shared in (False, True)])
        return
    print("| network: rewards | parameters | GB, score | GB, gradient | s, score | s, gradient |")
    print("|---|---|---|---|---|---|")
    _rows([f"measure({name!r})" for name in given.names or BUILDERS])


if __name__ == "__main__":
    main()
