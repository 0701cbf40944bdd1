"""A plan from the pipeline that will be called: its true steps, its own schedule, and nothing left behind."""

import diffusers
import pytest
import torch

from sdo_ray import differentiable_sample, make_plan
from sdo_ray.backprop import PlanError, called_scheduler, solver_weights
from tests.backprop.matrix.assemble import assemble, inputs
from tests.backprop.matrix.cases import CASES
from tests.backprop.matrix.check import adapt
from tests.backprop.tiny import stable_diffusion


def test_the_estimators_that_weigh_steps_get_the_pipelines_own_schedule() -> None:
    """FLUX shifts its schedule by the size of the image, which its scheduler by itself refuses to do."""
    pipe = assemble("FluxPipeline", CASES["Flux"].parts)
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    adapt(pipe)
    call = inputs(pipe, CASES["Flux"].call) | {"num_inference_steps": 6}
    given = {name: value for name, value in call.items() if name != "num_inference_steps"}
    plan = make_plan("leapalign", pipe, 6, call=given, generator=torch.Generator().manual_seed(0))
    w = solver_weights(called_scheduler(pipe, **call), None).w
    k, j = plan.steps
    assert plan.steps[k].scale == pytest.approx(float(w[k:j].sum() / w[k]))
    assert plan.steps[j].scale == pytest.approx(float(w[j:].sum() / w[j]))
    assert differentiable_sample(pipe, plan, **call).requires_grad


@pytest.mark.parametrize("which", ["pipeline", "scheduler"])
def test_second_order_schedulers_take_the_steps_that_they_take(which: str) -> None:
    pipe = stable_diffusion()
    pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    plan = make_plan("sdo", pipe if which == "pipeline" else pipe.scheduler, 4)
    assert plan.num_steps == 7
    images = differentiable_sample(pipe, plan, prompt="a", num_inference_steps=4)
    images.mean().backward()


def test_a_number_is_that_of_the_steps_and_not_enough_where_weights_are_needed() -> None:
    assert make_plan("sdo", 20).num_steps == 20
    with pytest.raises(PlanError, match=r"leapalign weighs steps by the solver.*make_plan\('leapalign', pipe, 20\)"):
        make_plan("leapalign", 20)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_in_a_pipeline_whose_call_is_interrupted(error: type[BaseException]) -> None:
    pipe = stable_diffusion()
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}

    def state() -> list[object]:
        modules = [module for part in parts.values() for module in part.modules()]
        hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules]
        return [type(pipe.scheduler), vars(pipe).keys(), hooks, *((type(m), vars(m).keys()) for m in modules)]

    pipe("a", num_inference_steps=1)
    before = state()

    def interrupt(pipe: object, step: int, t: object, kwargs: dict) -> dict:
        raise error

    for name in ("sdo", "leapalign", "refl"):
        plan = make_plan(name, pipe, 4)
        with pytest.raises(error):
            differentiable_sample(pipe, plan, prompt="a", num_inference_steps=4, callback_on_step_end=interrupt)
        assert state() == before
    images = differentiable_sample(pipe, make_plan("sdo", pipe, 4), prompt="a", num_inference_steps=4)
    assert images.requires_grad
