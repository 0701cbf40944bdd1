"""What pipelines make, told from their classes."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from rewards.modality import Made
from rewards.registry import spec_of
from rewards.service import RewardActor
from sdo_ray.media.modality import made_by, modality_of, sampling_rate
from sdo_ray.rollout.reward_settings import RewardActorSettings
from tests.backprop.matrix.assemble import assemble
from tests.backprop.matrix.cases import CASES
from tests.rewards.tiny.clap import save_clap
from tests.support.samples import saved

MADE = {
    "image": "StableDiffusion StableDiffusionXL StableDiffusion3 Flux StableDiffusionInpaint Kandinsky5T2I QwenImage",
    "video": "Wan WanImageToVideo CogVideoX LTX LTX2 HunyuanVideo AnimateDiff TextToVideoSD Mochi",
    "audio": "StableAudio StableAudio3 AudioLDM AudioLDM2 MusicLDM AceStep",
    "any": "MarigoldDepth KandinskyPrior",
}


@pytest.mark.parametrize(("made", "name"), [(made, name) for made, names in MADE.items() for name in names.split()])
def test_by_class(made: str, name: str) -> None:
    assert modality_of(getattr(diffusers, f"{name}Pipeline")) == made


def test_a_class_that_says_it() -> None:
    class Own(diffusers.DiffusionPipeline):
        modality = "any"

    class Wrong(diffusers.DiffusionPipeline):
        modality = "smell"

    assert modality_of(Own) == "any"
    with pytest.raises(ValueError, match=r"Wrong\.modality must be one of image, video, audio, any, got 'smell'"):
        modality_of(Wrong)


def test_sampling_rates() -> None:
    def made(name: str) -> Any:
        return assemble(f"{name}Pipeline", CASES[name].parts)

    assert sampling_rate(made("AudioLDM")) == 16
    assert sampling_rate(made("StableAudio")) > 0
    with pytest.raises(ValueError, match="no configuration of StableDiffusionPipeline"):
        sampling_rate(made("StableDiffusion"))


@pytest.mark.parametrize(("name", "rate"), [("AudioLDM", 16), ("StableAudio", 4), ("StableDiffusion", None)])
def test_rates_are_known_before_anything_is_loaded(name: str, rate: int | None, tmp_path: Path) -> None:
    made = made_by(str(saved(name, tmp_path)))
    assert made == Made("image" if rate is None else "audio", rate)


@pytest.mark.parametrize(
    ("options", "rate", "said"),
    [
        ({}, 16_000, None),
        ({"sample_rate": 16_000}, 16_000, None),
        (
            {"sample_rate": 48_000},
            16_000,
            "sample_rate is 48000, and the model's sounds have 16000 Hz; remove it",
        ),
        ({"sample_rate": 48_000}, None, None),
        ({}, None, "no configuration of the model says; give its option sample_rate, in Hz"),
    ],
)
def test_a_reward_of_sounds_hears_them_as_fast_as_they_are(options: Any, rate: int | None, said: str | None) -> None:
    settings = RewardActorSettings(name="clap_score", options=options)
    spec = spec_of("clap_score")
    assert spec is not None
    with nullcontext() if said is None else pytest.raises(ValueError, match=said):
        settings.check_modality(spec, Made("audio", rate))


def test_its_actor_is_told_the_rate(tmp_path: Path) -> None:
    options = {"source": str(save_clap(tmp_path))}
    sound = torch.randn(1, 1, 6000, generator=torch.Generator().manual_seed(0)).numpy()

    def score(given: int | None, **more: int) -> float:
        actor = RewardActor("clap_score", options | more, 1, "cpu", sampling_rate=given)
        return float(actor.score(sound, ["a cat"], False)[0][0])

    assert score(16_000) == score(None, sample_rate=16_000) != score(None)
