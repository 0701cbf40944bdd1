"""Gradients as vectors: they are those that training takes, and single steps add up."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, HeunDiscreteScheduler

from rewards.scoring import score_with_gradient
from rewards.terms import Mixing, RewardTerm
from sdo_ray.backprop import BackpropPlan, make_plan, sampler_plan
from sdo_ray.cheap_steps.choose import choose_runner
from sdo_ray.cheap_steps.settings import CacheSettings, CopySettings
from sdo_ray.fidelity.gradients import Evaluated, group_gradient, plan_gradient, step_gradients
from sdo_ray.fidelity.rewards import RewardPulls
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters, trained_parameters
from sdo_ray.models.policy import attach_working_copy
from sdo_ray.models.settings import ModelSettings
from sdo_ray.policy_gradient import policy_cotangents, step_advantages
from sdo_ray.rollout.contribution import compute_contribution
from sdo_ray.rollout.groups import groups_of
from sdo_ray.rollout.records import PromptBatch
from sdo_ray.rollout.sampling import noise, sample
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings
from sdo_ray.seeds import derive_seed
from tests.backprop.tiny import ddim, double, pndm, seeded, stable_diffusion
from tests.support.ink import Redness
from tests.support.policies import moved_policy

N = 4
BATCH = PromptBatch(0, (6, 7), ("a cat", "b"))
SAMPLING = SamplingSettings(num_inference_steps=N, guidance_scale=2.0)
TERMS = [RewardTerm("redness", 1.0)]


def rewards(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Any:
    scores, gradient = score_with_gradient(Redness(), images, list(prompts))
    return {"redness": scores}, {"redness": gradient}


EVALUATED = Evaluated(3, SAMPLING, rewards, TERMS, mixing=Mixing())


def parts(scheduler: Any = None) -> tuple[Any, dict[str, torch.nn.Parameter]]:
    """In double precision: sums made in another order agree to the last digits."""
    pipeline = double(stable_diffusion(scheduler))
    return pipeline, trained_parameters(find_denoisers(pipeline))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Up to the rounding of the vectors to float32."""
    return bool(b.abs().max() > 0 and (a - b).abs().max() <= 1e-5 * b.abs().max())


def test_the_gradient_is_the_mean_of_what_a_contribution_sums() -> None:
    pipeline, trained = parts()
    got = plan_gradient(pipeline, trained, BATCH, make_plan("full", N), EVALUATED)
    contribution = compute_contribution(
        pipeline,
        BATCH,
        0,
        seed=3,
        sampling=SAMPLING,
        plan=PlanSettings(name="full"),
        rewards=rewards,
        terms=TERMS,
        mixing=Mixing(),
    )
    expected = torch.cat([g.flatten() for g in contribution.gradient.values()]) / 2
    assert close(got.gradient, expected)
    assert got.reward == pytest.approx(sum(contribution.mixed) / 2)
    assert got.seconds > 0


def test_cheap_steps_give_another_gradient_of_the_same_plan() -> None:
    pipeline, trained = parts()
    plan = make_plan("sdo", N, draw="fixed", at=[2])
    exact = plan_gradient(pipeline, trained, BATCH, plan, EVALUATED).gradient
    for cache, copied, near in ((None, CopySettings(), True), (CacheSettings(name="taylor"), None, False)):
        runner = choose_runner(pipeline, cache, copied, N)
        cheap = plan_gradient(pipeline, trained, BATCH, plan, replace(EVALUATED, runner=runner)).gradient
        assert close(cheap, exact) is near


def test_of_groups_it_is_that_of_a_contribution_in_which_no_reward_has_a_gradient() -> None:
    pipeline, trained = parts()
    plan = PlanSettings(name="group", options={"children": 3})
    groups = groups_of(pipeline, SAMPLING, plan, seeded(1))
    first, again, other = (group_gradient(pipeline, trained, BATCH, groups, EVALUATED, draw) for draw in (0, 0, 1))
    assert torch.equal(first.gradient, again.gradient)
    assert not torch.equal(first.gradient, other.gradient)

    steps = groups.stochastic(derive_seed(3, "draw of groups", 0), BATCH.rows, differentiable=False)
    prompts = groups.each(BATCH.prompts)
    trajectory = sample(
        pipeline, SAMPLING.pipeline_call(prompts), groups.noise(3, BATCH.rows), groups.plan.backprop, stochastic=steps
    )
    scores, _ = rewards(trajectory.seen, prompts, [])
    [k], [kept] = groups.plan.kept, trajectory.outputs
    u = policy_cotangents(
        groups.plan, groups.transitions, steps, step_advantages(groups.plan, [scores["redness"]], [1.0])
    )
    expected = torch.autograd.grad(kept.o, list(trained.values()), u[k].to(kept.o) / 6)
    assert close(first.gradient, torch.cat([g.flatten() for g in expected]).float())
    assert first.reward == pytest.approx(scores["redness"].mean().item())


@pytest.mark.parametrize("scheduler", [ddim, lambda: DPMSolverMultistepScheduler(solver_order=2)])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_steps_are_those_of_sdo_and_add_up_to_all_direct_terms(scheduler: Any, checkpoint: bool) -> None:
    pipeline, trained = parts(scheduler())
    steps = step_gradients(pipeline, trained, BATCH, EVALUATED, checkpoint=checkpoint)
    assert len(steps) == N
    for k, G_k in enumerate(steps):
        single = plan_gradient(pipeline, trained, BATCH, make_plan("sdo", N, draw="fixed", at=[k]), EVALUATED)
        assert close(G_k, single.gradient)
    together = plan_gradient(pipeline, trained, BATCH, make_plan("sdo", N, K=N), EVALUATED)
    assert close(torch.stack(steps).sum(dim=0), together.gradient)


def test_single_steps_of_a_model_in_float16_are_those_of_float32(tiny_base: Path) -> None:
    """Also where a reward's gradient at a pixel is as small as float16's smallest number."""

    def faint(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Any:
        v = 1e-7 * torch.linspace(-1, 1, images[0].numel()).view(images[0].shape)
        return {"redness": (images * v).sum(dim=(1, 2, 3))}, {"redness": v.expand_as(images)}

    found = []
    for dtype in ("float16", "float32"):
        model = ModelSettings(base=str(tiny_base), dtype=dtype)
        pipeline = load_pipeline(model.base, model.dtype)
        set_parameters(trained := attach_working_copy(pipeline.components, model), moved_policy(model))
        found.append(step_gradients(pipeline, trained_parameters(trained), BATCH, replace(EVALUATED, rewards=faint)))
    for half, whole in zip(*found, strict=True):
        assert whole.any()
        assert (half - whole).norm() < 0.05 * whole.norm()


@pytest.mark.parametrize(
    ("scheduler", "num_steps"),
    [(HeunDiscreteScheduler, 2 * N - 1), (pndm, N + 1)],
    ids=["heun", "pndm"],
)
def test_schedulers_with_more_steps(scheduler: Any, num_steps: int) -> None:
    pipeline, trained = parts(scheduler())
    steps = step_gradients(pipeline, trained, BATCH, EVALUATED)
    assert len(steps) == num_steps
    for k, G_k in enumerate(steps):
        alone = sampler_plan(pipeline.scheduler, N, "sdo", draw="fixed", at=[k])
        assert close(G_k, plan_gradient(pipeline, trained, BATCH, alone, EVALUATED).gradient)
    together = sampler_plan(pipeline.scheduler, N, "sdo", K=num_steps)
    assert close(torch.stack(steps).sum(dim=0), plan_gradient(pipeline, trained, BATCH, together, EVALUATED).gradient)


def test_saved_bytes_are_those_of_the_kept_steps() -> None:
    pipeline, trained = parts()
    one, two, all_of_them = (
        plan_gradient(pipeline, trained, BATCH, make_plan("sdo", N, K=K), EVALUATED).saved for K in (1, 2, N)
    )
    assert all_of_them - one == pytest.approx((N - 1) * (two - one), rel=0.01)
    assert two - one > 100_000


@pytest.mark.parametrize(
    ("plan", "options", "rows"),
    [
        # Guidance doubles rows; a backward pass counts as two.
        ("sdo", {"K": 1}, 2 * 2 * (N + 2)),
        ("full", {}, 2 * 2 * 3 * N),
        ("full", {"checkpoint": True}, 2 * 2 * 3 * N),
    ],
)
def test_rows_are_those_of_forward_passes_and_twice_those_of_backward_passes(
    plan: str, options: dict[str, Any], rows: int
) -> None:
    pipeline, trained = parts()
    assert plan_gradient(pipeline, trained, BATCH, make_plan(plan, N, **options), EVALUATED).rows == rows


def test_rows_that_a_group_shares_count_once() -> None:
    pipeline, trained = parts()
    for k in (0, 2):
        settings = PlanSettings(name="group", options={"children": 3, "first": k, "last": k})
        groups = groups_of(pipeline, SAMPLING, settings, seeded(1))
        # The first call of a shape is made both ways, once.
        group_gradient(pipeline, trained, BATCH, groups, EVALUATED, 0)
        made = group_gradient(pipeline, trained, BATCH, groups, EVALUATED, 1)
        assert made.rows == 2 * 2 * ((k + 1) + 2 + 3 * (N - k - 1))


def test_a_reward_that_is_not_finite_counts_as_none() -> None:
    pipeline, trained = parts()

    def broken(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Any:
        scores, gradients = rewards(images, prompts, seeds)
        return {"redness": scores["redness"] * torch.tensor([1.0, float("nan")])}, gradients

    first = PromptBatch(0, BATCH.rows[:1], BATCH.prompts[:1])
    plan = make_plan("full", N)
    got = plan_gradient(pipeline, trained, BATCH, plan, Evaluated(3, SAMPLING, broken, TERMS, mixing=Mixing()))
    alone = plan_gradient(pipeline, trained, first, plan, EVALUATED)
    assert close(got.gradient, alone.gradient)
    assert got.reward == pytest.approx(alone.reward)


def test_a_plan_that_keeps_nothing_has_no_gradient() -> None:
    pipeline, trained = parts()
    with pytest.raises(RuntimeError, match="does not require grad"):
        plan_gradient(pipeline, trained, BATCH, BackpropPlan("none", N), EVALUATED)


def test_rewards_at_odds_are_told_with_their_gradients() -> None:
    def opposed(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Any:
        scores, gradients = rewards(images, prompts, seeds)
        s, g = scores["redness"], gradients["redness"]
        return {**scores, "blueness": -2 * s}, {**gradients, "blueness": -2 * g}

    pipeline, trained = parts()
    both = replace(EVALUATED, rewards=opposed, terms=[*TERMS, RewardTerm("blueness", 0.1)])
    measured = plan_gradient(pipeline, trained, BATCH, make_plan("full", N), both)
    told = RewardPulls.of([measured.pulls] * 2, [measured.cosines] * 2)
    images = sample(pipeline, SAMPLING.pipeline_call(BATCH.prompts), noise(3, BATCH.rows), make_plan("full", N)).seen
    norm = rewards(images, BATCH.prompts, ())[1]["redness"].flatten(1).norm(dim=1).square().mean().sqrt().item()
    assert told.norms == pytest.approx({"redness": norm, "blueness": 2 * norm})
    assert told.cosines == pytest.approx({"redness/blueness": -1.0})
