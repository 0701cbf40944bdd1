"""One place calls pipelines, and what it returns is what the pipeline makes."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, HeunDiscreteScheduler

from sdo_ray.backprop import BackpropPlan, ExactRunner, solver_weights
from sdo_ray.backprop.patches import attention_processors
from sdo_ray.rollout.sampling import draw, noise, plan_of, sample
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings
from tests.backprop.matrix.assemble import assemble, inputs
from tests.backprop.matrix.cases import CASES
from tests.backprop.tiny import pndm, stable_diffusion

REPOSITORY = Path(__file__).parents[2]
SAMPLING = SamplingSettings(num_inference_steps=4, guidance_scale=2.0)
CALL = SAMPLING.pipeline_call(["a", "b"])
OWN_CALLS = {
    "sdo_ray/sizing/sizes.py": "a call whose networks give zeros, for what it takes",
    "sdo_ray/rollout/sampling.py": "this is the place",
    "sdo_ray/backprop/sample.py": "its `differentiable_sample` is what the place calls",
    "sdo_ray/backprop/leaving.py": "leaves the call before the first step",
    "sdo_ray/zoo/denoiser.py": "draws the model that it fits, on a floor below",
    "sdo_ray/dry_batch/calls.py": "tries whether a stand-in with random weights can be called at all",
    "sdo_ray/registry/pyfunc_model.py": "runs where this package is not installed",
}
"""Files that call a pipeline, or for its gradient `differentiable_sample` or `trace`, and why they may."""


def named(node: ast.expr) -> str:
    """`c` of `a.b.c`."""
    return getattr(node, "attr", getattr(node, "id", ""))


def pipelines_of(tree: ast.AST) -> Iterator[str]:
    """What a file calls its pipelines: by their usual names, by annotation, or by where they come from."""
    yield from ("pipeline", "_pipeline", "pipe")
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation and "Pipeline" in ast.unparse(node.annotation):
            yield node.arg
        if isinstance(node, ast.AnnAssign) and "Pipeline" in ast.unparse(node.annotation):
            yield named(node.target)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made = ast.unparse(node.value.func)
            if "load_pipeline" in made or "Pipeline" in made:
                yield from map(named, node.targets)


def calls_one(file: Path) -> bool:
    tree = ast.parse(file.read_text())
    names = {*pipelines_of(tree), "differentiable_sample", "trace"}
    return any(isinstance(node, ast.Call) and named(node.func) in names for node in ast.walk(tree))


def test_nobody_else_calls_a_pipeline() -> None:
    files = [file for room in ("sdo_ray", "pipelines") for file in sorted((REPOSITORY / room).rglob("*.py"))]
    assert {file.relative_to(REPOSITORY).as_posix() for file in files if calls_one(file)} == OWN_CALLS.keys()


@pytest.mark.parametrize(
    "code",
    [
        "images = pipeline(prompt='a')",
        "self._pipeline(**call).images",
        "def f(model: DiffusionPipeline): return model('a')",
        "drawer = load_pipeline('zoo://emoji')\ndrawer('a')",
        "x = StableDiffusionPipeline.from_pretrained('a')\nx('a')",
        "backprop.differentiable_sample(p, plan)",
    ],
)
def test_calls_are_found(tmp_path: Path, code: str) -> None:
    (tmp_path / "code.py").write_text(code)
    assert calls_one(tmp_path / "code.py")


@pytest.fixture(scope="module")
def pipeline() -> DiffusionPipeline:
    return stable_diffusion()


def test_samples_are_those_of_a_plain_call(pipeline: Any) -> None:
    plain = pipeline(**CALL, generator=noise(3, [6, 7]), output_type="pt").images
    assert torch.equal(draw(pipeline, CALL, noise(3, [6, 7])), plain)
    plan = plan_of(pipeline, SAMPLING, PlanSettings(name="sdo", options={"K": 2}), torch.Generator().manual_seed(0))
    for backward in ("sampler", "trainer"):
        trajectory = sample(pipeline, CALL, noise(3, [6, 7]), plan, backward=backward)
        assert torch.equal(trajectory.samples, plain)
        assert torch.equal(trajectory.seen, plain)
        assert not trajectory.seen.requires_grad
        assert trajectory.plan is plan
        assert [kept.step for kept in trajectory.outputs] == list(plan.steps)
        assert len(trajectory.calls) == (2 if backward == "trainer" else 0)


def test_what_is_drawn_has_no_graph(pipeline: Any) -> None:
    with torch.enable_grad():
        assert not draw(pipeline, CALL, noise(3, [6, 7])).requires_grad


def test_rows_have_noise_of_their_own(pipeline: Any) -> None:
    def drawn(*rows: int) -> torch.Tensor:
        return draw(pipeline, SAMPLING.pipeline_call(["a"] * len(rows)), noise(3, rows))

    torch.testing.assert_close(drawn(6, 7)[1:], drawn(7), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(drawn(6), drawn(7))


@pytest.mark.parametrize("scheduler", [pndm(), HeunDiscreteScheduler()])
def test_plans_are_for_the_steps_that_the_scheduler_takes(scheduler: Any) -> None:
    pipeline: Any = stable_diffusion(scheduler)
    plan = plan_of(pipeline, SAMPLING, PlanSettings(name="full"))
    assert plan.num_steps == solver_weights(scheduler, 4).num_steps > 4
    assert len(sample(pipeline, CALL, noise(3, [6, 7]), plan).outputs) == plan.num_steps


def test_the_runner_makes_the_steps_without_a_graph(pipeline: Any) -> None:
    steps: list[int] = []

    class Counting(ExactRunner):
        def __call__(self, step: int, name: str, forward: Any, args: Any, kwargs: Any) -> Any:
            steps.append(step)
            return super().__call__(step, name, forward, args, kwargs)

    plan = plan_of(pipeline, SAMPLING, PlanSettings(name="sdo", options={"draw": "fixed", "at": [2]}))
    with_runner = sample(pipeline, CALL, noise(3, [6, 7]), plan, runner=Counting())
    assert steps == [0, 1, 3]
    plain = sample(pipeline, CALL, noise(3, [6, 7]), BackpropPlan("empty", 4))
    assert torch.equal(with_runner.samples, plain.samples)


@pytest.mark.parametrize("runner", [None, ExactRunner()])
def test_a_call_that_fails_in_its_middle_leaves_the_denoiser_as_it_was(runner: ExactRunner | None) -> None:
    """Perturbed attention puts processors in for its call, which images drawn after it would else be made with."""

    def fail(*_: Any) -> dict[str, Any]:
        raise MemoryError

    case = CASES["StableDiffusionPAG"]
    pipe = assemble("StableDiffusionPAGPipeline", case.parts)
    before = attention_processors(pipe.unet)
    call = inputs(pipe, case.call) | {"callback_on_step_end": fail}
    del call["output_type"]
    with pytest.raises(MemoryError):
        draw(pipe, call, [torch.Generator().manual_seed(0)], runner)
    assert all(a is b for (_, a), (_, b) in zip(before, attention_processors(pipe.unet), strict=True))
