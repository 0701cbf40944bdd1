"""Guidance's other branch is held, the prompt's never, in one batch and in calls of its own."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from sdo_ray.backprop import TraceError, run_by
from sdo_ray.backprop.tensors import floating, rebuilt
from sdo_ray.cheap_steps.choose import choose_runner
from sdo_ray.cheap_steps.runner import CheapRunner
from sdo_ray.cheap_steps.settings import CacheSettings
from tests.backprop.tiny import seeded, stable_diffusion, stable_diffusion_3

N = 6


def call(**more: Any) -> dict[str, Any]:
    given = {"prompt": ["a cat", "a dog"], "guidance_scale": 3.0, "num_inference_steps": N, "output_type": "pt"}
    return given | {"generator": seeded(1)} | more


class ByHand:
    """All rows computed at every step, then the first half of those at odd steps as it was at the step before."""

    def __init__(self) -> None:
        self._before: list[torch.Tensor] = []

    def sampling(self, _num_steps: int, _denoisers: Any) -> Any:
        return nullcontext()

    def __call__(self, step: int, _name: str, forward: Any, args: Any, kwargs: Any) -> Any:
        made = forward(*args, **kwargs)
        if step % 2:
            half = [torch.cat([a[:2], b[2:]]) for a, b in zip(self._before, floating(made), strict=True)]
            return rebuilt(made, iter(half))
        self._before = [x.clone() for x in floating(made)]
        return made

    exact = __call__


@pytest.mark.parametrize("made", [stable_diffusion, stable_diffusion_3])
def test_the_prompts_rows_are_computed_and_the_others_held(made: Any) -> None:
    pipe = made()
    runner = choose_runner(pipe, CacheSettings(name="guidance", every=2, last=0, order=0), None, N)
    with run_by(runner, pipe, N):
        got = pipe(**call()).images
    with run_by(ByHand(), pipe, N):
        expected = pipe(**call()).images
    plain = pipe(**call()).images
    assert (got - expected).abs().max() < 1e-3 * (plain - expected).abs().max()


def test_in_calls_of_its_own_it_is_the_second() -> None:
    runner = CheapRunner({"unet": [""]}, lambda _: frozenset({0}), order=0, guidance=True)
    computed: list[tuple[int, str]] = []
    with runner.sampling(3, {"unet": torch.nn.Identity()}), torch.no_grad():
        for step in range(3):
            x = torch.full((1, 2, 2), float(step))
            for branch in ("prompt", "other"):

                def forward(x: torch.Tensor, step: int = step, branch: str = branch) -> torch.Tensor:
                    computed.append((step, branch))
                    return x + (branch == "other")

                got = runner(step, "unet", forward, (x,), {})
                assert torch.equal(got, torch.ones(1, 2, 2) if branch == "other" else x)
    assert computed == [(0, "prompt"), (0, "other"), (1, "prompt"), (2, "prompt")]


def test_without_guidance_it_is_refused() -> None:
    pipe = stable_diffusion()
    runner = choose_runner(pipe, CacheSettings(name="guidance", every=2), None, N)
    with run_by(runner, pipe, N), pytest.raises(TraceError, match="for no other branch than the prompt's"):
        pipe(**call(guidance_scale=1.0))
