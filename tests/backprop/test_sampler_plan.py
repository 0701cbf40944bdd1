"""Plans for schedulers that take other than `num_inference_steps` steps, or steps that do not count by themselves."""

import diffusers
import pytest
import torch

from sdo_ray.backprop import (
    PlanError,
    check_sampler_plan,
    differentiable_sample,
    make_plan,
    sampler_plan,
    solver_weights,
)

from .tiny import ddim, gradients, seeded, stable_diffusion

STEPS = 4
TAKEN = {"DDIM": 4, "HeunDiscrete": 7, "PNDM": 13, "KDPM2Discrete": 7, "DEISMultistep": 4}


def scheduler(name: str) -> object:
    return getattr(diffusers, f"{name}Scheduler").from_config(ddim().config)


@pytest.mark.parametrize("name", TAKEN)
def test_any_draw_learns(name: str) -> None:
    pipe = stable_diffusion(scheduler(name))
    weights = solver_weights(pipe.scheduler, STEPS)
    assert weights.num_steps == TAKEN[name]
    kept = set()
    for seed in range(5):
        plan = sampler_plan(pipe.scheduler, STEPS, "sdo", generator=seeded(seed))
        assert plan.num_steps == weights.num_steps
        [k] = plan.steps
        kept.add(k)
        assert weights.w[k] != 0
        call = {"prompt": "a", "num_inference_steps": STEPS, "generator": seeded(1)}
        assert any(g.abs().max() > 0 for g in gradients(pipe, differentiable_sample(pipe, plan, **call)))
    assert len(kept) > 1


def test_where_every_step_counts_it_is_the_plan_itself() -> None:
    for name in ("sdo", "draft", "full", "flowbp-sparse"):
        weights = solver_weights(ddim(), 8)
        expected = make_plan(name, 8, generator=seeded(3), weights=weights)
        assert sampler_plan(ddim(), 8, name, generator=seeded(3)) == expected


def test_midpoints_are_kept_and_the_steps_to_them_are_not() -> None:
    w = solver_weights(scheduler("KDPM2Discrete"), STEPS).w
    counting = [i for i, w_i in enumerate(w.tolist()) if w_i]
    assert 0 < len(counting) < len(w)
    plan = sampler_plan(scheduler("KDPM2Discrete"), STEPS, "sdo", K=len(counting))
    assert list(plan.steps) == counting
    assert plan.num_steps == len(w)
    seen = sampler_plan(scheduler("KDPM2Discrete"), STEPS, "refl", generator=seeded())
    assert seen.reward_at in counting
    sparse = sampler_plan(scheduler("KDPM2Discrete"), STEPS, "flowbp-sparse", generator=seeded(), rescale=1.0)
    total = sum(step.scale * w[i] for i, step in sparse.steps.items())
    torch.testing.assert_close(total.abs(), w.abs().sum())  # the sum that the estimator keeps
    # Through the others go the gradients of coupled steps.
    assert list(sampler_plan(scheduler("KDPM2Discrete"), STEPS, "full").steps) == list(range(len(w)))


def test_a_scheduler_that_cannot_be_read_takes_the_steps_asked_for() -> None:
    flow = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    with pytest.raises(PlanError, match="mu"):
        solver_weights(flow, STEPS)
    assert sampler_plan(flow, STEPS, "sdo", K=STEPS).num_steps == STEPS
    with pytest.raises(PlanError, match="mu"):
        sampler_plan(flow, STEPS, "flowbp-sparse")


def test_the_check_knows_the_steps_that_count() -> None:
    assert check_sampler_plan(scheduler("HeunDiscrete"), STEPS, "sdo", {"K": 7})
    with pytest.raises(PlanError, match=r"K: got 7; legal: an integer in 1 .. 4"):
        check_sampler_plan(ddim(), STEPS, "sdo", {"K": 7})
    with pytest.raises(PlanError, match=r"K: got 7; legal: an integer in 1 .. "):
        check_sampler_plan(scheduler("KDPM2Discrete"), STEPS, "sdo", {"K": 7})
