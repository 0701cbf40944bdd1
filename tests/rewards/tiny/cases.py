"""Every reward with what it takes to make a tiny one of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rewards.brightness import Brightness
from rewards.endpoints.server import make_app

from . import blip, brisque, clap, clip, dino, mps, onnx, qwen
from .servers import chat, serve

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """How a tiny instance of a reward is made."""

    options: Callable[[Path], Mapping[str, Any]] = lambda folder: {}
    """Writes what it needs into an empty folder, and returns its options."""

    path: str | None = None
    """Import path of the tiny version of its class; None: its own class is small enough, or as large as its files."""

    prompts: tuple[str, str] = ("a cat", "two dogs and a bird")

    step: float = 1e-8
    """Of finite differences, in float64: deep networks of ReLUs are bent a thousand times within 1e-6."""

    tolerance: float = 1e-3
    """Of the gradient against them, relative; wide for networks that turn to float32 in between."""

    slow: bool = False
    """Whether it takes too long for the quick tests, as what is real in it cannot be made small."""

    computes_as: str | None = None
    """Another reward whose network and code it shares, and whose gradient is checked for both."""


def _tiny_clip(folder: Path) -> dict[str, Any]:
    return {"source": str(clip.save_clip_model(folder))}


def _image(folder: Path, number: int = 0) -> Path:
    path = folder / f"image{number}.png"
    pixels = np.sin((1 + number) * np.arange(48 * 40 * 3)).reshape(48, 40, 3) * 127 + 128
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def _references(folder: Path) -> dict[str, Any]:
    """A tiny DINOv2 and four images to compare with."""
    images = folder / "references"
    images.mkdir()
    for number in range(4):
        _image(images, number)
    return {"source": str(dino.save_dino(folder / "dino")), "references": images}


CASES: dict[str, Case] = {
    "brightness": Case(),
    "saturation": Case(),
    "sharpness": Case(),
    "symmetry": Case(),
    "layout": Case(),
    "colour_target": Case(lambda _: {"colour": "#3366ff", "box": [0, 0, 1, 0.5]}),
    "jpeg_compressibility": Case(),
    "jpeg_incompressibility": Case(),
    "preference": Case(),
    "heldout_preference": Case(computes_as="preference"),
    "alignment": Case(),
    "heldout_alignment": Case(computes_as="alignment"),
    "classification": Case(lambda _: {"classes": ["cat", "dog"]}, prompts=("cat", "dog"), computes_as="alignment"),
    "gram_style": Case(lambda folder: {"image": _image(folder), "size": 64}),
    "clip_score": Case(_tiny_clip),
    "pick_score": Case(lambda folder: _tiny_clip(folder) | {"tokenizer": str(folder)}),
    "siglip_score": Case(lambda folder: {"source": str(clip.save_siglip_model(folder))}),
    "hpsv2": Case(
        lambda folder: {"version": "v2.1", "source": str(clip.save_hpsv2(folder)), "tokenizer": str(folder)},
        path="tests.rewards.tiny.clip:TinyHpsv2",
    ),
    "aesthetic_v1": Case(
        lambda folder: _tiny_clip(folder) | {"weights": clip.save_head(folder / "head.pth", [""], [clip.WIDTH, 1])}
    ),
    "aesthetic_v2": Case(
        lambda folder: (
            _tiny_clip(folder)
            | {
                "weights": clip.save_head(
                    folder / "head.pth", [f"layers.{i}" for i in (0, 2, 4, 6, 7)], [clip.WIDTH, 16, 8, 6, 4, 1]
                )
            }
        )
    ),
    "aesthetic_v25": Case(
        lambda folder: {
            "source": str(clip.save_siglip_model(folder)),
            "weights": clip.save_head(
                folder / "head.pth", [f"scoring_head.{i}" for i in (0, 2, 4, 6, 8)], [clip.WIDTH, 16, 8, 6, 4, 1]
            ),
        }
    ),
    "perceptual_similarity": Case(lambda folder: {"image": _image(folder), "size": 64}),
    "image_similarity": Case(_references),
    "source_similarity": Case(
        lambda folder: {"source": str(dino.save_dino(folder))}, prompts=(str(HERE / "a.png"), str(HERE / "b.png"))
    ),
    "mmd": Case(_references),
    "frechet": Case(_references),
    "diversity": Case(lambda folder: {"source": str(dino.save_dino(folder))}),
    "http_scorer": Case(lambda _: {"url": serve(make_app(Brightness())) + "/score"}),
    "vision_endpoint": Case(
        lambda _: {
            "url": serve(chat(lambda text, image: f"Score: {1 + len(text) % 5}")) + "/v1/chat/completions",
            "model": "tiny",
            "template": "Score {prompt}.",
        }
    ),
    "image_reward": Case(
        lambda folder: {"source": str(blip.save_image_reward(folder)), "tokenizer": str(folder)},
        path="tests.rewards.tiny.blip:TinyImageReward",
    ),
    "cycle_reward": Case(
        lambda folder: {"source": str(blip.save_cycle_reward(folder)), "tokenizer": str(folder)},
        path="tests.rewards.tiny.blip:TinyCycleReward",
    ),
    "mps": Case(
        lambda folder: {"source": str(mps.save_mps(folder)), "tokenizer": str(folder)},
        path="tests.rewards.tiny.mps:TinyMps",
    ),
    "vqa_score": Case(
        lambda folder: {"source": str(qwen.save_qwen(folder)), "side": 112, "dtype": "float32"},
        prompts=("cat", "two dogs"),
        step=1e-3,
        tolerance=0.05,
    ),
    "hpsv3": Case(
        lambda folder: {**qwen.save_hpsv3(folder), "dtype": "float32"},
        prompts=("cat", "two dogs"),
        step=1e-3,
        tolerance=0.05,
    ),
    "video_align": Case(
        lambda folder: {**qwen.save_video_align(folder), "dtype": "float32"},
        prompts=("cat", "two dogs"),
        step=1e-3,
        tolerance=0.05,
    ),
    "ocr": Case(prompts=('a sign "open"', 'the word "cat"'), slow=True),
    "safety": Case(lambda folder: {"weights": onnx.save_classifier(folder / "tiny.onnx")}),
    "clap_score": Case(lambda folder: {"source": str(clap.save_clap(folder)), "sample_rate": 16_000}),
    "detections": Case(
        lambda _: {"detector": "tests.rewards.tiny.detector:halves", "confidence": 0.0},
        prompts=(
            '{"include": [{"class": "light"}, {"class": "dark"}]}',
            '{"include": [{"class": "dark", "count": 2}, {"class": "light"}]}',
        ),
    ),
    "brisque": Case(brisque.save_brisque),
}
