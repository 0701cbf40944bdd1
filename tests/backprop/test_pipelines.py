"""Any pipeline: no code per model. The table of all that are checked is docs/pipelines.md."""

import pytest

from .matrix.cases import CASES, REFUSED
from .matrix.run import run

# One of each kind: guidance in one batch and in two calls, masks, ControlNet, learned variance in pixels, two experts,
# pipelines within pipelines, a denoiser of another name, video, audio, copied schedulers, one with an end point.
QUICK = (
    "AnimateDiff",
    "CogVideoX",
    "Flux",
    "IF",
    "KandinskyV22Combined",
    "LatentConsistencyModelImg2Img",
    "SanaSprint",
    "SkyReelsV2DiffusionForcing",
    "StableAudio",
    "StableCascadeDecoder",
    "StableDiffusionControlNetInpaint",
    "StableDiffusionXLPAG",
    "WanImageToVideo",
)
WORKING = sorted(set(CASES) - set(REFUSED))


def test_there_are_many() -> None:
    assert len(WORKING) >= 150
    assert set(QUICK) <= set(WORKING)
    assert set(REFUSED) <= set(CASES)


@pytest.mark.parametrize("name", QUICK)
def test_some(name: str) -> None:
    run(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(WORKING) - set(QUICK)))
def test_all_others(name: str) -> None:
    run(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  Whatever the pipeline trips over; the table says what.
        run(name)
