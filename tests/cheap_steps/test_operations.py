"""A held step computes less by as much as what is held computes: counted in operations, whatever the machine does."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from sdo_ray.backprop import run_by
from sdo_ray.backprop.patches import replaced_call
from sdo_ray.cheap_steps.choose import choose_runner
from sdo_ray.cheap_steps.settings import CacheSettings
from tests.backprop.tiny import denoiser_of, seeded, stable_diffusion, stable_diffusion_3

N = 6
HELD = 3
"""Of them, with `every: 2` and none at the end."""
ENCODER = ("conv_in", "down_blocks.0", "down_blocks.1", "mid_block")
WAYS = {
    "taylor": (stable_diffusion, {"name": "taylor"}, ("",)),
    "guidance": (stable_diffusion, {"name": "guidance"}, ("",)),
    "guidance of a transformer": (stable_diffusion_3, {"name": "guidance"}, ("",)),
    "deepcache": (stable_diffusion, {"name": "deepcache"}, ("down_blocks.1", "mid_block", "up_blocks.0")),
    "faster-diffusion": (stable_diffusion, {"name": "faster-diffusion"}, ENCODER),
    "modules": (stable_diffusion_3, {"name": "modules", "modules": [".*_blocks.0.ff"]}, ("transformer_blocks.0.ff",)),
}


def operations(pipe: Any, modules: tuple[str, ...], cache: CacheSettings | None = None) -> int:
    """Floating-point operations of the modules' matrix products and convolutions in a call of N steps."""
    counts: list[int] = []

    def counted(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with FlopCounterMode(display=False) as counter:
            output = forward(*args, **kwargs)
        counts.append(counter.get_total_flops())
        return output

    call: dict[str, Any] = {"prompt": "a cat", "guidance_scale": 3.0, "num_inference_steps": N, "output_type": "latent"}
    with ExitStack() as stack:
        for name in modules:
            stack.enter_context(replaced_call(denoiser_of(pipe).get_submodule(name), counted))
        if cache is not None:
            stack.enter_context(run_by(choose_runner(pipe, cache, None, N), pipe, N))
        pipe(**call, generator=seeded(1))
    return sum(counts)


@pytest.mark.parametrize(("made", "cache", "held"), WAYS.values(), ids=WAYS.keys())
def test_held_steps_save_what_the_held_modules_compute(made: Any, cache: dict[str, Any], held: tuple[str, ...]) -> None:
    pipe = made()
    plain, there = operations(pipe, ("",)), operations(pipe, held)
    cheap = operations(pipe, ("",), CacheSettings(every=2, last=0, **cache))
    rows = 0.5 if cache["name"] == "guidance" else 1.0
    assert there
    assert plain - cheap == rows * there * HELD / N
