"""Rows are optimised as autograd and Adam by hand would, each on its own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HeunDiscreteScheduler

from rewards.scoring import score_with_gradient
from sdo_ray.backprop import differentiable_sample, initial_latents, make_plan, sampler_plan
from sdo_ray.input_optimization.loop import optimize_batch
from sdo_ray.input_optimization.records import (
    OptimizedRow,
    OptimizerConfig,
    RowBatch,
    final_variable,
    results_table,
)
from sdo_ray.input_optimization.settings import (
    FrozenModelSettings,
    OptimizationSettings,
    TextMixSettings,
)
from sdo_ray.media.picture import picture, to_png
from sdo_ray.models.load import load_pipeline
from sdo_ray.rollout.reward_settings import RewardSettings
from sdo_ray.rollout.settings import PlanSettings, SamplerSettings, SamplingSettings
from sdo_ray.seeds import generator
from tests.backprop.tiny import ddim, pndm
from tests.support.ink import Ink

SEED, N, LR = 3, 4, 0.05

Texts = Mapping[str, Sequence[str]]


class Recorder:
    """`Ink` by key, and what it was asked."""

    def __init__(self, keys: Sequence[str] = ("ink",)) -> None:
        self.asked: list[Mapping[str, Sequence[str]]] = []
        self.keys = keys

    def __call__(self, images: torch.Tensor, texts: Texts, seeds: Sequence[int]) -> tuple[dict, dict]:
        self.asked.append(texts)
        scores, gradient = score_with_gradient(Ink(), images, list(texts[self.keys[0]]))
        return dict.fromkeys(self.keys, scores), dict.fromkeys(self.keys, gradient)


@pytest.fixture(scope="module")
def pipeline(tiny_base: Path) -> Any:
    return load_pipeline(str(tiny_base))


def config(variable: str = "latents", iterations: int = 3, **changes: Any) -> OptimizerConfig:
    optimization = {"variable": variable, "iterations": iterations, "learning_rate": LR} | changes
    return OptimizerConfig(
        seed=SEED,
        model=FrozenModelSettings(base="tiny"),
        sampling=SamplingSettings(num_inference_steps=N, guidance_scale=2.0),
        plan=PlanSettings(),
        rewards=TextMixSettings(terms=[RewardSettings(name="ink")]),
        optimization=OptimizationSettings(**optimization),
        samplers=SamplerSettings(),
        column="prompt",
    )


def batch(*rows: int) -> RowBatch:
    return RowBatch(rows, {"prompt": tuple("abcdefgh"[row] for row in rows), "target": ("x",) * len(rows)})


def test_equals_a_plain_loop(pipeline: Any) -> None:
    call = {"prompt": ["a", "b"], "num_inference_steps": N, "guidance_scale": 2.0}

    def noise() -> list[torch.Generator]:
        return [generator(SEED, "noise", row) for row in (0, 1)]

    latents = initial_latents(pipeline, **call, generator=noise()).requires_grad_()
    adam, draws = torch.optim.Adam([latents], lr=LR), generator(SEED, "plan", 0)
    curve, kept = [], []
    for iteration in range(4):
        plan = make_plan("sdo", N, generator=draws)
        images = differentiable_sample(pipeline, plan, **call, latents=latents, generator=noise())
        curve.append(Ink()(images, []).tolist())
        if iteration == 3:
            break
        kept.append(min(plan.steps))
        adam.zero_grad()
        (-Ink()(images, []).sum()).backward()
        assert latents.grad is not None
        for row in range(2):
            latents.grad[row] *= min(1.0, 1e-3 / (latents.grad[row].norm() + 1e-6))
        adam.step()

    results = optimize_batch(pipeline, batch(0, 1), config(max_grad_norm=1e-3), Recorder())
    for row, result in enumerate(results):
        assert result.kept_steps == kept
        assert result.mixed == pytest.approx([values[row] for values in curve], rel=1e-5)
        assert result.scores["ink"] == result.mixed
        assert result.mixed[-1] > result.mixed[0], "it got better"
        assert result.best_iteration == 3
        torch.testing.assert_close(result.variable["final"], latents[row].detach(), rtol=1e-4, atol=1e-4)


SCHEDULERS = {"ddim": (ddim, N), "pndm": (pndm, N + 1), "heun": (HeunDiscreteScheduler, 2 * N - 1)}
"""And the steps that they take."""


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("variable", ["latents", "prompt_embeds", "guidance_scale"])
def test_every_variable_gets_better_and_gives_its_image_again(tiny_base: Path, variable: str, scheduler: str) -> None:
    pipeline: Any = load_pipeline(str(tiny_base))
    pipeline.scheduler = SCHEDULERS[scheduler][0]()
    rows = (4,) if variable == "guidance_scale" else (4, 5)
    settings = config(variable, iterations=5, learning_rate={"guidance_scale": 0.5}.get(variable, 0.05))
    results = optimize_batch(pipeline, batch(*rows), settings, Recorder())
    table = results_table(results).to_pylist()
    final = torch.stack([final_variable(row) for row in table])
    for result in results:
        assert max(result.mixed) > result.mixed[0]
        assert result.mixed[result.best_iteration] == max(result.mixed)
    given = {variable: final[0].item() if variable == "guidance_scale" else final}
    call = {"prompt": [result.texts["prompt"] for result in results], "guidance_scale": 2.0, "num_inference_steps": N}
    if variable == "prompt_embeds":
        call["prompt"] = None  # plain diffusers takes the embeddings in its place
    noise = [generator(SEED, "noise", row) for row in rows]
    with torch.no_grad():
        images = pipeline(**call | given, generator=noise, output_type="pt").images
    assert [to_png(picture(image, "image")) for image in images] == [result.final_image for result in results]
    assert all(result.initial_image != result.final_image for result in results)


@pytest.mark.parametrize("variable", ["latents", "prompt_embeds"])
def test_in_float16_with_a_decoder_in_float32(sdxl_base: Path, variable: str) -> None:
    """SDXL as published: its decoder overflows in float16."""
    found = []
    for dtype in ("float16", "float32"):
        pipeline = load_pipeline(str(sdxl_base), dtype)
        assert pipeline.vae.dtype == torch.float32
        how = config(variable)
        sampling = how.sampling.model_copy(update={"options": {"height": 32, "width": 32}})
        [row] = optimize_batch(pipeline, batch(0), replace(how, sampling=sampling), Recorder())
        found.append(row)
    half, whole = found
    assert half.kept_steps == whole.kept_steps
    assert half.mixed == pytest.approx(whole.mixed, abs=2e-3)
    moved, expected = (row.variable["final"] - row.variable["initial"] for row in found)
    assert torch.cosine_similarity(moved.flatten().float(), expected.flatten().float(), dim=0) > 0.9


@pytest.mark.parametrize(("scheduler", "steps"), SCHEDULERS.values(), ids=SCHEDULERS)
def test_any_step_that_the_scheduler_takes_can_be_kept(tiny_base: Path, scheduler: Any, steps: int) -> None:
    pipeline: Any = load_pipeline(str(tiny_base))
    pipeline.scheduler = scheduler()
    draws, expected = generator(SEED, "plan", 0), []
    for _ in range(24):
        expected.append(min(sampler_plan(pipeline.scheduler, N, "sdo", generator=draws).steps))
    (result,) = optimize_batch(pipeline, batch(0), config(iterations=24), Recorder())
    assert result.kept_steps == expected
    assert max(expected) == steps - 1


def test_rows_do_not_depend_on_their_company(pipeline: Any) -> None:
    together = optimize_batch(pipeline, batch(2, 6), config(), Recorder())
    alone = optimize_batch(pipeline, batch(2), config(), Recorder())
    # Batched and single matrix products differ in the order of their sums, and Adam magnifies what is nearly zero.
    assert together[0].mixed == pytest.approx(alone[0].mixed, rel=1e-4)
    assert together[1].row == 6
    again = optimize_batch(pipeline, batch(2, 6), config(), Recorder())
    for one, other in zip(together, again, strict=True):
        assert results_table([one]).equals(results_table([other])), "the same batch again is the same"


def test_rewards_are_given_their_own_texts(pipeline: Any) -> None:
    terms = [RewardSettings(name="ink", text="target"), RewardSettings(name="ink", weight=0.0)]
    recorder = Recorder(("ink@target", "ink"))
    settings = replace(config(iterations=1), rewards=TextMixSettings(terms=terms))
    results = optimize_batch(pipeline, batch(0, 1), settings, recorder)
    assert recorder.asked == [{"ink@target": ("x", "x"), "ink": ("a", "b")}] * 2
    assert results[0].scores.keys() == {"ink@target", "ink"}
    assert results[1].texts == {"prompt": "b", "target": "x"}


def test_a_row_that_is_not_finite_stays_and_the_others_go_on(pipeline: Any) -> None:
    class Flaw(Recorder):
        def __call__(self, images: torch.Tensor, texts: Texts, seeds: Sequence[int]) -> tuple[dict, dict]:
            scores, gradients = super().__call__(images, texts, seeds)
            scores["ink"][0] = torch.nan
            return scores, gradients

    bad, good = optimize_batch(pipeline, batch(0, 1), config(), Flaw())
    assert torch.equal(bad.variable["final"], bad.variable["initial"])
    assert all(score != score for score in bad.mixed)
    assert (bad.best_iteration, bad.initial_image) == (0, bad.final_image)
    assert good.best_iteration == 3
    assert not torch.equal(good.variable["final"], good.variable["initial"])


def test_above_the_cap_nothing_moves(pipeline: Any) -> None:
    terms = [RewardSettings(name="ink", cap=-10.0)]
    (result,) = optimize_batch(pipeline, batch(0), replace(config(), rewards=TextMixSettings(terms=terms)), Recorder())
    assert result.mixed == [-10.0] * 4
    assert torch.equal(result.variable["final"], result.variable["initial"])


def test_patience(pipeline: Any) -> None:
    class Falling(Recorder):
        """Row 0 is best at its start, row 1 gets better all the time."""

        def __call__(self, images: torch.Tensor, texts: Texts, seeds: Sequence[int]) -> tuple[dict, dict]:
            scores, gradients = super().__call__(images, texts, seeds)
            scores["ink"] = torch.tensor([-float(len(self.asked)), float(len(self.asked))])
            return scores, gradients

    stopped, going = optimize_batch(pipeline, batch(0, 1), config(iterations=5, patience=2), Falling())
    assert stopped.mixed == [-1.0, -2.0, -3.0]
    assert stopped.best_iteration == 0
    assert len(stopped.kept_steps) == 2
    assert going.mixed == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert going.best_iteration == 5
    alone = Falling()
    optimize_batch(pipeline, batch(0, 1), config(iterations=5, patience=1), alone)
    assert len(alone.asked) == 6


def test_a_batch_whose_rows_have_all_stopped_ends(pipeline: Any) -> None:
    class Constant(Recorder):
        def __call__(self, images: torch.Tensor, texts: Texts, seeds: Sequence[int]) -> tuple[dict, dict]:
            scores, gradients = super().__call__(images, texts, seeds)
            return {"ink": torch.zeros_like(scores["ink"])}, gradients

    recorder = Constant()
    results: list[OptimizedRow] = optimize_batch(pipeline, batch(0, 1), config(iterations=9, patience=2), recorder)
    assert len(recorder.asked) == 3
    assert [len(result.mixed) for result in results] == [3, 3]


def test_the_sphere_is_kept(pipeline: Any) -> None:
    (result,) = optimize_batch(pipeline, batch(0), config(keep_norm=True, learning_rate=0.5), Recorder())
    initial, final = result.variable["initial"], result.variable["final"]
    assert final.norm().item() == pytest.approx(initial.norm().item(), rel=1e-5)
    assert (final - initial).norm() > 0.1 * initial.norm()
