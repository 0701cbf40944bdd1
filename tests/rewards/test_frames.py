"""Image rewards on videos, frame by frame."""

import pytest
import torch

from rewards import create
from rewards.frames import Frames, OfFrames
from rewards.modality import SHAPES, fits
from rewards.scoring import RewardMistake, score, score_with_gradient
from rewards.service import RewardActor
from rewards.spec import inspect_spec

VIDEOS = torch.rand(2, 5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("take", "num_frames", "places"),
    [
        ("first", 7, [0]),
        ("all", 3, [0, 1, 2]),
        (1, 5, [2]),
        (2, 8, [2, 6]),
        (3, 81, [13, 40, 67]),
        (9, 4, [0, 1, 2, 3]),
    ],
)
def test_which_frames(take, num_frames, places):
    assert list(Frames(take).places(num_frames)) == places


@pytest.mark.parametrize("combine", ["mean", "minimum"])
@pytest.mark.parametrize("take", ["first", "all", 2])
def test_scores_and_gradients_are_those_of_the_frames(take, combine):
    """Against a loop over videos and frames, each an image to the reward."""
    reward, frames = create("sharpness"), Frames(take, combine)
    scores, gradient = score_with_gradient(OfFrames(reward, frames), VIDEOS, ["", ""])
    assert gradient is not None
    for b, video in enumerate(VIDEOS):
        places = list(frames.places(5))
        alone = [score_with_gradient(reward, video[f : f + 1], [""]) for f in places]
        values = torch.cat([s for s, _ in alone])
        expected = torch.zeros_like(video)
        for f, (s, g) in zip(places, alone, strict=True):
            assert g is not None
            share = 1 / len(places) if combine == "mean" else float(s == values.min())
            expected[f] = share * g[0]
        torch.testing.assert_close(scores[b], values.mean() if combine == "mean" else values.min())
        torch.testing.assert_close(gradient[b], expected)


@pytest.mark.parametrize("combine", ["mean", "minimum"])
def test_a_frame_without_a_score_leaves_its_video_without_one(combine):
    videos = VIDEOS.clone()
    videos[1, 3] = torch.nan
    scores = score(OfFrames(create("jpeg_compressibility"), Frames(combine=combine)), videos, ["", ""])
    assert scores.isfinite().tolist() == [True, False]


def test_the_actor_applies_them():
    actor = RewardActor("brightness", {}, 1, "cpu", frames=Frames("first"))
    scores, gradient, _ = actor.score(VIDEOS.numpy(), ["", ""], True)
    assert gradient is not None
    assert gradient.shape == tuple(VIDEOS.shape)
    assert not gradient[:, 1:].any()
    torch.testing.assert_close(torch.from_numpy(scores), create("brightness")(VIDEOS[:, 0], []))


def test_no_frames_are_none():
    with pytest.raises(ValueError, match="from 1 on, got 0"):
        Frames(0)


@pytest.mark.parametrize(
    ("shape", "kinds"),
    [
        ((2, 3, 8, 8), {"image", "any"}),
        ((2, 4, 8, 8), {"any"}),
        ((2, 5, 3, 8, 8), {"video", "any"}),
        ((2, 1, 100), {"audio", "any"}),
        ((2,), {"any"}),
    ],
)
def test_shapes(shape, kinds):
    assert {kind for kind in SHAPES if fits(shape, kind)} == kinds


def test_what_it_does_not_judge_is_said():
    with pytest.raises(RewardMistake, match=r"judges images \[B, 3, H, W\], and was given \[2, 5, 3, 8, 8\]"):
        score(create("brightness"), VIDEOS, ["", ""])


def test_a_modality_that_there_is_not():
    class Smell:
        differentiable = True
        modality = "smell"

    with pytest.raises(TypeError, match="must be one of image, video, audio, any, got 'smell'"):
        inspect_spec(Smell)
