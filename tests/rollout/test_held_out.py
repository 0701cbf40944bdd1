"""What a look measures of images by itself."""

import math
from typing import Any

import pytest
import torch

from sdo_ray.rollout import held_out as held_out_module
from sdo_ray.rollout.held_out import OF_IMAGES, held_out_scores, of_images
from sdo_ray.rollout.looks import HeldOut
from sdo_ray.rollout.settings import SamplingSettings
from tests.rollout.test_contribution import pipeline

__all__ = ["pipeline"]


def test_numbers_of_images_by_hand() -> None:
    grey, red = torch.full((3, 4, 4), 0.5), torch.zeros(3, 4, 4)
    red[0] = 1.0
    assert of_images(torch.stack([grey, grey])) == {"sharpness": 0.0, "saturation": 0.0, "diversity": 0.0}
    both = of_images(torch.stack([grey, red, grey]))
    assert both == pytest.approx({"sharpness": 0.0, "saturation": 1 / 3, "diversity": 2 / 3 * 0.5})
    board = (torch.arange(4)[:, None] + torch.arange(4)) % 2
    assert of_images(board.expand(1, 3, 4, 4).float())["sharpness"] > 1.0


def test_what_has_no_such_numbers_has_none() -> None:
    assert of_images(torch.zeros(2, 9, 3, 4, 4)) == {}
    assert of_images(torch.zeros(2, 1, 400)) == {}
    broken = torch.rand(3, 3, 4, 4)
    broken[1, 0, 0, 0] = math.nan
    assert of_images(broken) == of_images(broken[[0, 2]])
    assert of_images(broken[1:2]) == {}


def test_a_look_at_all_prompts_together(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made two at once; an evaluator with one of the names has it."""

    def evaluate(images: torch.Tensor, prompts: Any) -> Any:
        return {"ink": 1 - images.mean((1, 2, 3)), "saturation": torch.full((len(images),), 7.0)}, {}

    monkeypatch.setattr(held_out_module, "RewardClient", lambda evaluators, learned: evaluate)
    sampling = SamplingSettings(num_inference_steps=2)
    evaluators: Any = {"ink": None, "saturation": None}
    given = HeldOut(tuple("abc"), (0, 1, 2), frozenset(), evaluators)
    means = held_out_scores(pipeline, sampling, given, seed=3, batch_size=2)
    assert set(means) == {"ink", *OF_IMAGES}
    assert means["saturation"] == 7.0
    whole = held_out_scores(pipeline, sampling, given, seed=3, batch_size=3)
    assert means == pytest.approx(whole, rel=1e-3)
    assert means["diversity"] > 0
