"""What pipelines make, told from their classes."""

from typing import Any

import diffusers
import pytest

from sdo_ray.media.modality import modality_of, sampling_rate
from tests.backprop.matrix.assemble import assemble
from tests.backprop.matrix.cases import CASES

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
