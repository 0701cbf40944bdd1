"""What a call starts from can be taken out and put in again, for any pipeline alike."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from sdo_ray.backprop import (
    TraceError,
    differentiable_sample,
    given_prompt_embeds,
    initial_latents,
    initial_prompt_embeds,
    make_plan,
)

from .tiny import ddim, reward, seeded, stable_diffusion, stable_diffusion_3

N = 3
CALL: dict[str, Any] = {"prompt": ["a cat", "dogs"], "num_inference_steps": N, "guidance_scale": 3.0}


def drawn(pipe: Any, **more: Any) -> torch.Tensor:
    return pipe(**(CALL | {"generator": seeded(3), "output_type": "pt"} | more)).images


@pytest.fixture(params=[stable_diffusion, stable_diffusion_3])
def pipe(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_initial_latents_draw_the_same(pipe: Any) -> None:
    latents = initial_latents(pipe, **CALL, generator=seeded(3))
    assert torch.equal(drawn(pipe, latents=latents, generator=seeded(4)), drawn(pipe))
    assert not torch.equal(drawn(pipe, latents=2 * latents), drawn(pipe))


def test_a_scheduler_that_scales_its_noise() -> None:
    pipe = stable_diffusion(EulerDiscreteScheduler.from_config(ddim().config))
    latents = initial_latents(pipe, **CALL, generator=seeded(3))
    assert latents.std().item() == pytest.approx(1, abs=0.1)
    torch.testing.assert_close(drawn(pipe, latents=latents), drawn(pipe), rtol=1e-4, atol=1e-5)


def test_prompt_embeds_draw_the_same_and_learn(pipe: Any) -> None:
    expected = drawn(pipe)
    embeds = initial_prompt_embeds(pipe, **CALL)
    assert embeds.shape[0] == 2
    with given_prompt_embeds(pipe, embeds):
        assert torch.equal(drawn(pipe), expected)
        assert torch.equal(drawn(pipe, prompt=["b", "b"]), drawn(pipe, prompt=["b", "b"])), "for one call only"
    with given_prompt_embeds(pipe, embeds.requires_grad_()):
        images = differentiable_sample(pipe, make_plan("sdo", N, draw="fixed", at=[1]), **CALL, generator=seeded(3))
    assert torch.equal(images, expected)
    assert (torch.autograd.grad(reward(images), embeds)[0].flatten(1).norm(dim=1) > 0).all()


def test_they_are_the_prompt_embeds_of_the_call() -> None:
    pipe = stable_diffusion()
    embeds = initial_prompt_embeds(pipe, **CALL)
    assert torch.equal(drawn(pipe, prompt=None, prompt_embeds=embeds), drawn(pipe))


@pytest.mark.parametrize("function", [initial_latents, initial_prompt_embeds])
def test_the_pipeline_is_left_as_found(pipe: Any, function: Callable[..., torch.Tensor]) -> None:
    cls, step = type(pipe), type(pipe.scheduler)
    function(pipe, **CALL)
    with pytest.raises(ValueError, match="prompt"):
        function(pipe, **CALL | {"prompt": None})
    assert type(pipe) is cls
    assert type(pipe.scheduler) is step


def test_a_pipeline_without_encode_prompt() -> None:
    class Unconditional:
        pass

    with pytest.raises(TraceError, match="has no `encode_prompt`"):
        initial_prompt_embeds(Unconditional())
    with pytest.raises(TraceError, match="has no `encode_prompt`"), given_prompt_embeds(Unconditional(), torch.ones(1)):
        pass
