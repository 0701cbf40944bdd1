"""A row's embedding learns by comparison: one step against a loop by hand, and a reward without a gradient rises."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rewards import create
from rewards.scoring import score, score_with_gradient
from sdo_ray.backprop import (
    BackpropPlan,
    StepGradient,
    called_scheduler,
    differentiable_sample,
    given_prompt_embeds,
    initial_prompt_embeds,
)
from sdo_ray.backprop.transitions import transitions
from sdo_ray.input_optimization.gradients import compared
from sdo_ray.input_optimization.loop import optimize_batch
from sdo_ray.input_optimization.records import OptimizerConfig, RowBatch
from sdo_ray.input_optimization.settings import (
    FrozenModelSettings,
    OptimizationSettings,
    TextMixSettings,
)
from sdo_ray.models.load import load_pipeline
from sdo_ray.rollout.reward_settings import RewardSettings
from sdo_ray.rollout.settings import PlanSettings, SamplerSettings, SamplingSettings
from sdo_ray.seeds import derive_seed, generator
from tests.support.ink import Ink

SEED, N, G, K, ROW = 3, 4, 3, 1, 5
CALL = {"prompt": ["a"], "num_inference_steps": N, "guidance_scale": 2.0}


class Shown:
    """`Ink`, with its gradient or without."""

    def __init__(self, gradient: bool = False) -> None:
        self.gradient = gradient
        self.seen: list[torch.Tensor] = []

    def __call__(self, images: torch.Tensor, texts: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> Any:
        scores, gradient = score_with_gradient(Ink(), images, list(texts["ink"]))
        self.seen.append(scores)
        return {"ink": scores}, {"ink": gradient if self.gradient else None}


@pytest.fixture(scope="module")
def pipeline(tiny_base: Path) -> Any:
    return load_pipeline(str(tiny_base))


def config(iterations: int = 3, reward: str = "ink", children: int = G, **optimization: Any) -> OptimizerConfig:
    changes = {"variable": "prompt_embeds", "iterations": iterations, "learning_rate": 0.05} | optimization
    return OptimizerConfig(
        seed=SEED,
        model=FrozenModelSettings(base="tiny"),
        sampling=SamplingSettings(num_inference_steps=N, guidance_scale=2.0),
        plan=PlanSettings(name="group", options={"children": children, "advantage": "plain", "first": K, "last": K}),
        rewards=TextMixSettings(terms=[RewardSettings(name=reward)]),
        optimization=OptimizationSettings(**changes),
        samplers=SamplerSettings(batch_size=1),
        column="prompt",
    )


BATCH = RowBatch((ROW,), {"prompt": ("a",)})


def test_it_is_the_policy_gradient_of_the_row_s_own_output(pipeline: Any) -> None:
    embedding = initial_prompt_embeds(pipeline, **CALL)[0].requires_grad_()
    shown = Shown()
    found = compared(pipeline, BATCH, config(), embedding, shown, 7, generator(SEED, "plan", ROW), differentiable=False)

    outputs: list[torch.Tensor] = []
    with given_prompt_embeds(pipeline, embedding[None]):
        differentiable_sample(
            pipeline,
            BackpropPlan("own", N, {K: StepGradient()}),
            output_hook=lambda k, s, o: outputs.append(o),
            generator=[generator(SEED, "noise", ROW)],
            **CALL,
        )
    [o], step = outputs, transitions(called_scheduler(pipeline, **CALL), "cps")[K]
    seeds = [derive_seed(derive_seed(SEED, "comparison", 7), f"step {g}", ROW) for g in range(G)]
    eps = torch.stack([torch.randn(o.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    [r] = shown.seen
    u = ((r - r.mean())[:, None, None, None] * eps).sum(0, keepdim=True) * step.weight / (step.std * eps[0].numel())
    (expected,) = torch.autograd.grad(o, embedding, u)
    assert expected.abs().max() > 0
    [gradient] = found.gradients
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
    assert found.first_step == K


def test_files_get_smaller_by_comparison_alone(pipeline: Any) -> None:
    jpeg = create("jpeg_compressibility")

    def rewards(images: torch.Tensor, texts: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> Any:
        return {"jpeg_compressibility": score(jpeg, images, ["a"] * len(images))}, {"jpeg_compressibility": None}

    [result] = optimize_batch(pipeline, BATCH, config(8, "jpeg_compressibility", 8, learning_rate=0.2), rewards)
    assert result.mixed[result.best_iteration] > result.mixed[0]
    assert result.kept_steps == [K] * 8


def test_a_row_done_again_is_the_same_row(pipeline: Any) -> None:
    first, again = (optimize_batch(pipeline, BATCH, config(2), Shown())[0] for _ in range(2))
    assert first.mixed == again.mixed
    assert torch.equal(first.variable["final"], again.variable["final"])


def test_other_noise_is_compared_at_each_iteration(pipeline: Any) -> None:
    shown = Shown()
    frozen = config(2, max_change=1e-9)  # the embedding stays where it is
    optimize_batch(pipeline, BATCH, frozen, shown)
    looks, comparisons = shown.seen[::2], shown.seen[1::2]
    torch.testing.assert_close(looks[0], looks[1])
    assert not torch.allclose(comparisons[0], comparisons[1])


def test_a_reward_that_has_a_gradient_teaches_by_it(pipeline: Any) -> None:
    by_gradient, by_comparison = (
        optimize_batch(pipeline, BATCH, config(2), Shown(gradient))[0] for gradient in (True, False)
    )
    assert by_gradient.mixed[-1] > by_gradient.mixed[0]
    assert by_gradient.mixed != by_comparison.mixed


def test_equal_rewards_and_missing_ones_make_no_step(pipeline: Any) -> None:
    for value in (1.0, float("nan")):

        def rewards(images: torch.Tensor, *_: Any, value: float = value) -> Any:
            return {"ink": torch.full((len(images),), value)}, {"ink": None}

        [result] = optimize_batch(pipeline, BATCH, config(1), rewards)
        assert torch.equal(result.variable["initial"], result.variable["final"])
