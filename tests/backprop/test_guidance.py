"""The prompt's branch alone: the gradient is that of the plan with the other branch detached by hand."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch

from sdo_ray.backprop import (
    KeptCall,
    PlanError,
    SolverWeights,
    TraceError,
    available,
    backward_kept,
    differentiable_sample,
    make_plan,
    surrogate,
)
from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.backprop.saved import saved_activations
from sdo_ray.backprop.tensors import floating, replace_floating

from .matrix.assemble import assemble, inputs
from .matrix.cases import CASES
from .matrix.check import adapt
from .tiny import (
    assert_same,
    denoiser_of,
    double,
    gradients,
    reward,
    seeded,
    stable_diffusion,
    stable_diffusion_3,
    trained,
)

N, B = 4, 2


def call() -> dict[str, Any]:
    prompts = {"prompt": ["a cat", "b"], "negative_prompt": ["c", "d"]}
    noise = [seeded(i) for i in range(B)]
    return prompts | {"num_inference_steps": N, "guidance_scale": 3.0, "generator": noise}


def plan(name: str = "sdo", guidance: str = "prompt", **options: Any) -> Any:
    fixed = {"K": 2, "draw": "fixed", "at": [0, 2]} if name == "sdo" else {}
    weights = (
        {"weights": SolverWeights(a=1.0, w=torch.ones(N, dtype=torch.float64))}
        if name.startswith(("flowbp", "leap"))
        else {}
    )
    return make_plan(name, N, generator=seeded(1), guidance=guidance, **fixed, **weights, **options)


@contextmanager
def detached_by_hand(pipe: Any, detach: Callable[[int, torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Within the block denoiser call n of the pipeline returns `detach(n, output)`."""
    calls = iter(range(99))

    def hook(_: Any, __: Any, output: Any) -> Any:
        n = next(calls)
        return replace_floating(output, iter([detach(n, x) for x in floating(output)]))

    with ExitStack() as stack:
        for module in denoisers_of(pipe).values():
            stack.callback(module.register_forward_hook(hook).remove)
        yield


def first_half(_: int, x: torch.Tensor) -> torch.Tensor:
    """As diffusers' pipelines mostly have it: the negative prompts first."""
    return torch.cat([x[: len(x) // 2].detach(), x[len(x) // 2 :]])


@pytest.mark.parametrize("kind", [stable_diffusion, stable_diffusion_3])
@pytest.mark.parametrize("name", ["sdo", "full", "refl", "flowbp-sparse", "flowbp-bridge", "leapalign"])
def test_both_branches_in_one_batch(kind: Any, name: str) -> None:
    pipe = double(kind())
    options = {"K": 3} if name.startswith("flowbp") else {}
    got = differentiable_sample(pipe, plan(name, **options), **call())
    with detached_by_hand(pipe, first_half):
        expected = differentiable_sample(pipe, plan(name, "both", **options), **call())
    assert torch.equal(got, expected)
    assert_same(gradients(pipe, got), gradients(pipe, expected))


def test_it_is_another_gradient_than_that_of_both() -> None:
    pipe = stable_diffusion()
    prompt, both = (
        gradients(pipe, differentiable_sample(pipe, plan(guidance=g), **call())) for g in ("prompt", "both")
    )
    assert any((a - b).norm() > 0.05 * b.norm() for a, b in zip(prompt, both, strict=True))


@pytest.mark.parametrize(
    ("name", "negative"),
    [
        ("Wan", lambda n, x: x.detach() if n % 2 else x),  # the prompt's call, then the other
        ("CogView4", lambda n, x: x.detach() if n % 2 else x),
        ("Lumina", lambda n, x: torch.cat([x[: len(x) // 2], x[len(x) // 2 :].detach()])),  # the prompt's half first
        ("Lumina2", lambda n, x: x.detach() if n % 2 else x),
    ],
)
def test_in_two_calls_or_the_other_order(name: str, negative: Any) -> None:
    pipe = assemble(f"{name}Pipeline", CASES[name].parts)
    parameters = adapt(pipe)
    given = inputs(pipe, CASES[name].call)

    def vector(guidance: str) -> torch.Tensor:
        chosen = make_plan("sdo", 2, K=1, draw="fixed", at=[1], guidance=guidance)
        images = differentiable_sample(pipe, chosen, **given | {"generator": seeded(3)})
        got = torch.autograd.grad(images.square().sum(), parameters, allow_unused=True)
        return torch.cat([(p * 0 if g is None else g).flatten() for p, g in zip(parameters, got, strict=True)])

    alone, both = vector("prompt"), vector("both")
    with detached_by_hand(pipe, negative):
        expected = vector("both")
    assert (alone - expected).norm() < 1e-3 * expected.norm()
    assert (both - expected).norm() > 0.01 * expected.norm()


@pytest.mark.parametrize("kind", [stable_diffusion, stable_diffusion_3])
def test_elsewhere_half_the_rows_travel(kind: Any) -> None:
    pipe = double(kind())
    expected = gradients(pipe, differentiable_sample(pipe, plan(), **call()))
    for again in (on_the_sampler, on_a_trainer):
        for p in trained(pipe):
            p.grad = None
        kept: list[KeptCall] = []
        images = differentiable_sample(pipe, plan(), elsewhere=kept, **call())
        reward(images).backward()
        again(denoiser_of(pipe), kept)
        assert [len(g) for one in kept for g in one.gradients()] == [B, B]
        assert_same([p.grad for p in trained(pipe)], expected)  # type: ignore[misc]


def on_the_sampler(denoiser: torch.nn.Module, kept: list[KeptCall]) -> None:
    for one in kept:
        backward_kept(denoiser, one, pieces=1)


def on_a_trainer(denoiser: torch.nn.Module, kept: list[KeptCall]) -> None:
    for one in kept:
        surrogate(denoiser, one.args, one.kwargs, one.gradients()).backward()


@pytest.mark.parametrize("kind", [stable_diffusion, stable_diffusion_3])
def test_it_saves_half_of_a_kept_step(kind: Any) -> None:
    pipe = kind()

    def saved(guidance: str, *at: int) -> int:
        chosen = make_plan("sdo", N, K=len(at), draw="fixed", at=list(at), guidance=guidance)
        with saved_activations(*(m for m in pipe.components.values() if isinstance(m, torch.nn.Module))) as found:
            differentiable_sample(pipe, chosen, **call())
        return found.bytes

    both, prompt = (saved(g, 1, 2) - saved(g, 1) for g in ("both", "prompt"))
    assert 0.45 < prompt / both < 0.6


def test_without_guidance_nothing_changes() -> None:
    pipe = double(stable_diffusion())
    chosen = [plan(guidance=guidance) for guidance in ("prompt", "both")]
    images = [differentiable_sample(pipe, one, **call() | {"guidance_scale": 1.0}) for one in chosen]
    assert_same(*(gradients(pipe, one) for one in images))


def test_the_guidance_scale_keeps_its_gradient() -> None:
    pipe = double(stable_diffusion())

    def slope(guidance: str) -> torch.Tensor:
        scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        images = differentiable_sample(pipe, plan(guidance=guidance), **call() | {"guidance_scale": scale})
        return torch.autograd.grad(images.square().sum(), scale)[0]

    alone = slope("prompt")
    with detached_by_hand(pipe, first_half):
        expected = slope("both")
    assert_same([alone], [expected])


def test_defaults_are_those_of_the_papers() -> None:
    """FlowBP's configurations hold the negative branch for its own estimators, and not for LeapAlign."""
    weights = SolverWeights(a=1.0, w=torch.ones(9, dtype=torch.float64))
    found = {name: make_plan(name, 9, weights=weights).guidance for name in available()}
    assert {name for name, guidance in found.items() if guidance == "prompt"} == {
        "flowbp-sparse",
        "flowbp-bridge",
        "flowbp-lagrange",
    }
    assert make_plan("flowbp-sparse", 9, weights=weights, guidance="both").guidance == "both"


def test_refusals() -> None:
    with pytest.raises(PlanError, match="guidance: got 'none'; legal: 'both' or 'prompt'"):
        plan(guidance="none")
    with pytest.raises(PlanError, match="guidance: got 'prompt'; legal: 'both' with re-noised copies"):
        make_plan("draft-lv", N, guidance="prompt")
    pipe = assemble("StableDiffusionPAGPipeline", CASES["StableDiffusionPAG"].parts)
    adapt(pipe)
    with pytest.raises(TraceError, match=r"attention processors.*guidance 'both'"):
        differentiable_sample(
            pipe, make_plan("sdo", 2, guidance="prompt"), **inputs(pipe, CASES["StableDiffusionPAG"].call)
        )
