"""`sdo align` of models that make no images: each learns, and resumes to the bit after everything was killed."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.backprop.matrix.assemble import image
from tests.backprop.matrix.sound import vocoder
from tests.rewards.tiny.clap import save_clap
from tests.rewards.tiny.dino import save_dino
from tests.support.runs import REPOSITORY, AlignProcess, tiny_settings
from tests.support.samples import saved

EVALUATION = {"num_prompts": 3}
SMALL: dict[str, dict[str, Any]] = {
    "model": {"lora": {"rank": 2, "alpha": 2.0}},
    "samplers": {"count": 1},
    "training": {"updates": 2, "batch_size": 2, "checkpoint_every": 1},
    "trainers": {"count": 1},
    "tracking": {"preview_every": 1, "preview_prompts": ["a"]},
}
"""On top of `tiny_settings`."""


def video(directory: Path, **others: Any) -> Path:
    """A Wan in miniature, an image reward on its frames, and one of videos."""
    return tiny_settings(
        directory,
        saved("Wan", directory / "base"),
        **SMALL | others,
        sampling={
            "num_inference_steps": 2,
            "options": {"height": 32, "width": 32, "num_frames": 5, "max_sequence_length": 16},
        },
        rewards={
            "terms": [
                {"name": "tests.support.ink:Ink", "frames": 2},
                {"name": "tests.support.samples:Steadiness", "weight": 0.5},
                {"name": "jpeg_compressibility", "weight": 0.0, "frames": {"take": "first"}},
            ]
        },
        evaluation=EVALUATION | {"evaluators": [{"name": "tests.support.ink:Smoothness", "frames": "all"}]},
    )


def half(directory: Path) -> Path:
    """All of its transformer, on two trainers that share one of bfloat16."""
    return video(
        directory,
        model={"dtype": "bfloat16", "train": "full", "lora": None},
        training=SMALL["training"] | {"batch_size": 4, "backward": "trainer"},
        trainers={"count": 2, "zero_stage": 3, "dtype": "bfloat16"},
    )


def audio(directory: Path) -> Path:
    """An AudioLDM in miniature, loud enough to be heard, and CLAP likewise."""
    (directory / "clap").mkdir()
    clap = {"name": "clap_score", "options": {"source": str(save_clap(directory / "clap", 16))}}
    return tiny_settings(
        directory,
        saved("AudioLDM", directory / "base", vocoder=partial(vocoder, initializer_range=0.1)),
        **SMALL,
        sampling={"num_inference_steps": 2, "options": {"audio_length_in_s": 400.0}},
        rewards={"terms": [clap]},
        evaluation=EVALUATION | {"evaluators": [{"name": "tests.support.samples:Loudness"}]},
    )


def inpainting(directory: Path) -> Path:
    """A StableDiffusionInpaint in miniature; each prompt has an image, to stay near to, and a mask beside the file."""
    near = {"name": "source_similarity", "text": "source", "options": {"source": str(save_dino(directory / "dino"))}}
    settings = tiny_settings(
        directory,
        saved("StableDiffusionInpaint", directory / "base"),
        **SMALL,
        prompts={"train": "train.csv", "inputs": {"image": "source", "mask_image": "mask", "strength": "how_much"}},
        sampling={"num_inference_steps": 4, "options": {"height": 32, "width": 32}},
        rewards={"terms": [{"name": "tests.support.ink:Ink"}, near]},
        evaluation=EVALUATION | {"prompts": "heldout.csv"},
    )
    for file, prompts in (("train.csv", "abcdefg"), ("heldout.csv", "hijklmn")):
        (directory / "images").mkdir(exist_ok=True)
        rows = ["prompt,source,mask,how_much"]
        for number, prompt in enumerate(prompts):
            image(number).save(directory / f"images/{prompt}.png")
            image(number + 50).convert("L").save(directory / f"images/{prompt}-mask.png")
            rows.append(f"{prompt},images/{prompt}.png,images/{prompt}-mask.png,0.75")
        (directory / file).write_text("\n".join(rows))
    return settings


def own(directory: Path) -> Path:
    """The trajectories of the docs, with code beside the settings file."""
    shutil.copy(REPOSITORY / "docs/examples/trajectories.py", directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(directory)
        from trajectories import trained

        trained(steps=50).save_pretrained(directory / "paths")
    return tiny_settings(
        directory,
        directory / "paths",
        **SMALL | {"model": {"pipeline": "trajectories:TrajectoryPipeline", "train": "full", "lora": None}},
        sampling={"num_inference_steps": 4, "guidance_scale": 1.0},
        rewards={"terms": [{"name": "trajectories:Smoothness"}]},
        evaluation=EVALUATION | {"evaluators": [{"name": "tests.support.samples:Shortness"}]},
    )


def trained(directory: Path) -> dict[str, torch.Tensor]:
    """Of the last checkpoint."""
    last = sorted((directory / "runs/tiny/train").glob("checkpoint_*/*.safetensors"))[-1]
    return safetensors.torch.load_file(last)


@pytest.mark.slow
@pytest.mark.parametrize("model", [video, half, audio, inpainting, own], ids=lambda model: model.__name__)
def test_learns_and_resumes_to_the_bit(model: Any, tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    with AlignProcess(str(model(tmp_path / "whole"))) as run:
        assert "before/after sheet" in run.finish()
    settings = str(model(tmp_path / "killed"))
    with AlignProcess(settings) as run:
        run.until("update 1/2")
        run.kill_everything()
    with AlignProcess(settings) as run:
        run.finish()
    whole, resumed = trained(tmp_path / "whole"), trained(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
