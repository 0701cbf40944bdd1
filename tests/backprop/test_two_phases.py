"""Kept steps and the decoder made again for their backward pass: the same gradient, and nothing held meanwhile."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import HeunDiscreteScheduler

from sdo_ray.backprop import KeptCall, backward_kept, differentiable_sample, make_plan
from sdo_ray.backprop.denoisers import denoisers_of
from sdo_ray.backprop.pieces import Call, counted_halvings, gradients_of, sample_of
from sdo_ray.backprop.surroundings import Surroundings
from tests.support.sdxl import sdxl

from .matrix.assemble import assemble, inputs
from .matrix.cases import CASES
from .matrix.check import adapt
from .tiny import pndm, reward, seeded, stable_diffusion, stable_diffusion_3

PROMPTS = ["a cat", "b", "c"]


def sampled(pipe: Any, plan: Any, again: bool, **call: Any) -> tuple[torch.Tensor, list[KeptCall]]:
    kept: list[KeptCall] = []
    elsewhere = kept if again and plan.is_of_single_calls else None
    return differentiable_sample(pipe, plan, decode_again=again, elsewhere=elsewhere, **call), kept


def gradient(pipe: Any, plan: Any, again: bool, pieces: int = 3, **call: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The images, and the gradient of what is trained as one vector."""
    parameters = [p for module in denoisers_of(pipe).values() for p in module.parameters() if p.requires_grad]
    for p in parameters:
        p.grad = None
    images, kept = sampled(pipe, plan, again, **call)
    reward(images.float()).backward()
    for one in kept:
        backward_kept(denoisers_of(pipe)[one.denoiser], one, pieces)
    return images.detach(), torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).float().flatten() for p in parameters]
    )


def assert_same(pipe: Any, plan: Any, call: Callable[[], dict[str, Any]], tolerance: float = 1e-3) -> None:
    images, expected = gradient(pipe, plan, again=False, **call())
    same_images, got = gradient(pipe, plan, again=True, **call())
    assert torch.equal(images, same_images)
    assert expected.norm() > 0
    assert (got - expected).norm() <= tolerance * expected.norm()


def batch(steps: int = 4) -> dict[str, Any]:
    generators = [seeded(i) for i in range(len(PROMPTS))]
    return {"prompt": PROMPTS, "num_inference_steps": steps, "generator": generators, "guidance_scale": 3.0}


ESTIMATORS = ("sdo", "draft", "refl", "drtune", "full", "alignprop", "draft-lv")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_gradient_by_every_estimator(name: str) -> None:
    assert_same(stable_diffusion(), make_plan(name, 4, generator=seeded(1)), batch)


@pytest.mark.parametrize(("scheduler", "steps"), [(pndm(), 5), (HeunDiscreteScheduler(), 7)])
def test_the_same_gradient_with_schedulers_that_remember(scheduler: Any, steps: int) -> None:
    assert_same(stable_diffusion(scheduler), make_plan("sdo", steps, K=2, generator=seeded(1)), batch)


def test_the_same_gradient_of_a_transformer() -> None:
    assert_same(stable_diffusion_3(), make_plan("sdo", 4, generator=seeded(1)), batch)


# Guidance in two calls and in one; a batch of images whose position is not in the batch; an autoencoder that remembers
# frames; sound; learned variance in pixels; a ControlNet; two experts; a decoder of frames.
PIPELINES = (
    "AnimateDiff",
    "CogVideoX",
    "Flux",
    "IF",
    "LTX2",
    "StableAudio",
    "StableCascadeDecoder",
    "StableDiffusionControlNetInpaint",
    "StableVideoDiffusion",
    "WanImageToVideo",
)


@pytest.mark.parametrize("name", PIPELINES)
def test_the_same_gradient_of_every_kind_of_pipeline(name: str) -> None:
    pipe = assemble(f"{name}Pipeline", CASES[name].parts)
    adapt(pipe)
    arguments = inputs(pipe, CASES[name].call)

    def call() -> dict[str, Any]:
        torch.manual_seed(2)
        return arguments | {"generator": seeded(3)}

    assert_same(pipe, make_plan("sdo", arguments["num_inference_steps"], draw="fixed", at=[1]), call)


def test_an_autoencoder_that_is_upcast_for_its_decoding_decodes_again_as_it_did() -> None:
    pipe = sdxl(torch.float16, force_upcast=True)
    arguments = inputs(pipe, CASES["StableDiffusionXL"].call)
    assert_same(pipe, make_plan("sdo", 2), lambda: arguments | {"generator": seeded()}, tolerance=1e-2)
    assert pipe.vae.dtype == torch.float16


def held(root: torch.Tensor) -> int:
    """Bytes of the different storages that the graph of `root` keeps."""
    storages, seen, nodes = {}, set(), [root.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        values = [getattr(node, name) for name in dir(node) if name.startswith("_saved_") and "raw" not in name]
        for value in [*values, *getattr(node, "saved_tensors", ())]:
            for x in value if isinstance(value, list | tuple) else [value]:
                if isinstance(x, torch.Tensor):
                    storages[x.untyped_storage().data_ptr()] = x.untyped_storage()
        nodes.extend(n for n, _ in node.next_functions)
    return sum(storage.nbytes() for storage in storages.values())


def test_a_batch_that_waits_holds_no_more_than_its_images() -> None:
    pipe = stable_diffusion()
    plan = make_plan("sdo", 4, draw="fixed", at=[1])
    images, _ = sampled(pipe, plan, True, **batch())
    retained, _ = sampled(pipe, plan, False, **batch())
    assert held(images) < 2 * images.nbytes < 0.02 * held(retained)


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x @ weight


def call_that_fits(rows: int, x: torch.Tensor, weight: torch.Tensor) -> Call:
    def limited(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if len(x) > rows:
            raise torch.OutOfMemoryError
        return linear(x, weight)

    return Call(limited, (x, weight), {}, Surroundings(()), sample_of(linear(x, weight)))


def call_of(forward: Any, *args: Any) -> Call:
    return Call(forward, args, {}, Surroundings(args), sample_of(forward(*args)))


@pytest.mark.parametrize("rows", [1, 2, 5, 9])
def test_pieces_add_up_and_lie_side_by_side(rows: int) -> None:
    x, weight, u = (torch.randn(*shape, generator=seeded(i)) for i, shape in enumerate([(5, 3), (3, 2), (5, 2)]))
    found = gradients_of(call_of(linear, x, weight), [u], (), [True, True], rows)
    torch.testing.assert_close(found.inputs[0], u @ weight.T)
    torch.testing.assert_close(found.inputs[1], x.T @ u)


@pytest.mark.parametrize("some", [True, False])
def test_rows_at_which_no_gradient_arrives_are_not_made(some: bool) -> None:
    x, weight, u = (torch.randn(*shape, generator=seeded(i)) for i, shape in enumerate([(5, 3), (3, 2), (5, 2)]))
    u[0], u[2:] = 0, 0
    u *= some
    call, made = call_of(linear, x, weight), list[int]()

    def noted(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        made.append(len(x))
        return linear(x, weight)

    found = gradients_of(replace(call, forward=noted), [u], (), [True, True], 1)
    assert made == [1] * some
    torch.testing.assert_close(found.inputs[0], u @ weight.T)
    torch.testing.assert_close(found.inputs[1], x.T @ u)


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_what_does_not_fit_is_halved_until_it_does(limit: int, caplog: pytest.LogCaptureFixture) -> None:
    x, weight, u = (torch.randn(*shape, generator=seeded(i)) for i, shape in enumerate([(5, 3), (3, 2), (5, 2)]))
    call = call_that_fits(limit, x, weight)
    with counted_halvings() as halvings:
        found = gradients_of(call, [u], (), [True, True], 5)
    torch.testing.assert_close(found.inputs[0], u @ weight.T)
    torch.testing.assert_close(found.inputs[1], x.T @ u)
    assert "out of memory" in caplog.text
    assert halvings.count == {1: 3, 2: 2, 4: 1}[limit]  # 5 -> 3 -> 2 -> 1


def test_one_row_that_does_not_fit_is_an_error() -> None:
    x, weight, u = torch.ones(5, 3), torch.ones(3, 2), torch.ones(5, 2)
    call = call_that_fits(0, x, weight)
    with pytest.raises(torch.OutOfMemoryError):
        gradients_of(call, [u], (), [True, True], 5)


def test_rows_that_know_of_one_another_are_made_together() -> None:
    x, u = torch.randn(5, 3, generator=seeded()), torch.randn(5, 3, generator=seeded(1))

    def centred(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(0)) ** 2

    y = x.clone().requires_grad_()
    centred(y).backward(u)
    found = gradients_of(call_of(centred, x), [u], (), [True], 1)
    torch.testing.assert_close(found.inputs[0], y.grad)


def test_noise_inside_a_call_is_the_same_again() -> None:
    generator = seeded(7)

    def noisy(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return x * torch.randn(x.shape, generator=generator) * torch.rand(x.shape)

    x, before = torch.ones(4, 2), (torch.get_rng_state(), generator.get_state())
    surroundings = Surroundings((x, generator))
    o = noisy(x, generator)
    after = generator.get_state()
    call = Call(noisy, (x, generator), {}, surroundings, sample_of(o))
    found = gradients_of(call, [torch.ones(4, 2)], (), [True], 1)
    torch.testing.assert_close(found.inputs[0], o)
    assert torch.equal(generator.get_state(), after)
    assert not torch.equal(before[1], after)
