"""Gradients that are small beside float16's smallest number arrive as float32's do."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from rewards.terms import Mixing, RewardTerm
from sdo_ray.backprop.scaling import power_of_two
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters
from sdo_ray.models.policy import attach_working_copy
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.contribution import compute_contribution
from sdo_ray.rollout.records import Contribution, PromptBatch
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings
from sdo_ray.training.modules import Denoisers
from tests.support.policies import moved_policy


def made(base: Path, dtype: str, size: float, weight: float = 1.0, **how: str) -> Contribution:
    """With a reward whose gradient at a pixel is about `size`."""

    def ramp(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[dict, dict]:
        v = size * torch.linspace(-1, 1, images[0].numel()).view(images[0].shape)
        return {"ramp": (images * v).sum(dim=(1, 2, 3))}, {"ramp": v.expand_as(images)}

    model = ModelSettings.model_validate({"base": str(base), "dtype": dtype})
    pipeline = load_pipeline(model.base, model.dtype)
    set_parameters(attach_working_copy(pipeline.components, model), moved_policy(model))
    return compute_contribution(
        pipeline,
        PromptBatch(0, (0, 1), ("a", "b")),
        0,
        seed=5,
        sampling=SamplingSettings(num_inference_steps=2, guidance_scale=2.0, options={"height": 32, "width": 32}),
        plan=PlanSettings(name="sdo", options={"draw": "fixed", "at": [0]}),
        rewards=ramp,
        terms=[RewardTerm("ramp", weight)],
        mixing=Mixing(),
        **how,
    )


def flat(gradient: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([g.flatten() for _, g in sorted(gradient.items())]).double()


def assert_same_direction_and_size(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert torch.cosine_similarity(got, expected, dim=0) > 0.99
    assert got.norm().item() == pytest.approx(expected.norm().item(), rel=0.03)


@pytest.mark.parametrize(
    ("size", "weight", "kept_graph"),
    [(1e-4, 1.0, "retain"), (1e-5, 0.01, "retain"), (1e-5, 0.01, "recompute"), (100.0, 1.0, "recompute")],
)
def test_the_gradient_is_that_of_float32(tiny_base: Path, size: float, weight: float, kept_graph: str) -> None:
    half, whole = (made(tiny_base, dtype, size, weight, kept_graph=kept_graph) for dtype in ("float16", "float32"))
    assert half.num_skipped == 0
    assert_same_direction_and_size(flat(half.gradient), flat(whole.gradient))
    for step, norm in whole.step_norms.items():
        assert half.step_norms[step] == pytest.approx(norm, rel=0.02)


@pytest.mark.parametrize("size", [1e-5])
def test_also_where_the_trainer_makes_it(tiny_base: Path, size: float) -> None:
    there = []
    for dtype in ("float16", "float32"):
        model = ModelSettings.model_validate({"base": str(tiny_base), "dtype": dtype})
        module = Denoisers(model, moved_policy(model))
        [arrived] = Contribution.from_arrow(made(tiny_base, dtype, size, backward="trainer").to_arrow())
        module(arrived.calls).backward()
        there.append(flat({name: p.grad for name, p in module.named().items() if p.grad is not None}))
    assert_same_direction_and_size(*there)


@pytest.mark.parametrize("kept_graph", ["retain", "recompute"])
def test_sdxl_as_published(sdxl_base: Path, kept_graph: str) -> None:
    half, whole = (made(sdxl_base, dtype, 1e-5, kept_graph=kept_graph) for dtype in ("float16", "float32"))
    assert_same_direction_and_size(flat(half.gradient), flat(whole.gradient))


@pytest.mark.parametrize("size", [1e-20, 3e-5, 0.9, 1.0, 7e4])
def test_the_factor_is_a_power_of_two(size: float) -> None:
    scale = power_of_two([torch.full((3, 4), size), torch.zeros(2)])
    assert 0.7 < scale * size < 1.5
    assert float(scale).hex().startswith("0x1.0000000000000p")


def test_nothing_and_what_is_not_finite_is_left_as_it_is() -> None:
    assert power_of_two([torch.zeros(3)]) == power_of_two([]) == power_of_two([torch.tensor([1.0, torch.inf])]) == 1
