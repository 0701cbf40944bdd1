"""Held steps are continued, kept steps are the denoiser's own, and nothing is left of it after a call."""

import copy
from typing import Any

import pytest
import torch

from sdo_ray.backprop import BackpropPlan, KeptCall, differentiable_sample, make_plan, run_by, surrogate
from sdo_ray.cheap_steps.choose import choose_runner
from sdo_ray.cheap_steps.runner import CheapRunner
from sdo_ray.cheap_steps.settings import CacheSettings
from tests.backprop.tiny import (
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

N = 8
MODULES = [r"transformer_blocks\.\d+\.attn", r"transformer_blocks\.\d+\.ff"]
WAYS = {
    "taylor": (stable_diffusion, {"name": "taylor"}),
    "taylor, order 0": (stable_diffusion, {"name": "taylor", "order": 0, "every": 2}),
    "taylor of a transformer": (stable_diffusion_3, {"name": "taylor", "order": 2}),
    "taylor with a tolerance": (stable_diffusion, {"name": "taylor", "tolerance": 0.3}),
    "cg-taylor": (stable_diffusion, {"name": "cg-taylor", "tolerance": 0.5}),
    "cg-taylor of a transformer": (stable_diffusion_3, {"name": "cg-taylor", "tolerance": 0.5}),
    "guidance": (stable_diffusion, {"name": "guidance", "every": 2}),
    "guidance of a transformer": (stable_diffusion_3, {"name": "guidance"}),
    "deepcache": (stable_diffusion, {"name": "deepcache"}),
    "faster-diffusion": (stable_diffusion, {"name": "faster-diffusion", "every": 2}),
    "modules": (stable_diffusion_3, {"name": "modules", "modules": MODULES, "order": 1}),
}
PLANS = {
    "one kept": make_plan("sdo", N, draw="fixed", at=[4]),
    "two kept": make_plan("sdo", N, K=2, draw="fixed", at=[3, 5]),
    "first kept": make_plan("sdo", N, draw="fixed", at=[0]),
}


def call(**more: Any) -> dict[str, Any]:
    return {"prompt": "a cat", "guidance_scale": 3.0, "num_inference_steps": N, "generator": seeded(1)} | more


def runner_of(pipe: Any, **cache: Any) -> CheapRunner:
    runner = choose_runner(pipe, CacheSettings(**cache), None, N)
    assert isinstance(runner, CheapRunner)
    return runner


def counted(pipe: Any) -> list[int]:
    """Grows by an entry at every run of the denoiser."""
    runs: list[int] = []
    denoiser_of(pipe).register_forward_hook(lambda *_: runs.append(1))
    return runs


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_a_kept_step_is_the_denoisers_own(way: Any, plan: BackpropPlan) -> None:
    made, cache = way
    pipe = double(made())
    bare, runner = copy.deepcopy(denoiser_of(pipe)), runner_of(pipe, **cache)
    images = differentiable_sample(pipe, plan, runner=runner, **call())
    got = gradients(pipe, images)
    calls: list[KeptCall] = []
    again = differentiable_sample(pipe, plan, runner=runner, elsewhere=calls, **call())
    assert torch.equal(images, again)
    reward(again).backward()
    expected = [torch.zeros_like(p) for p in trained(pipe)]
    for kept in calls:
        direct = surrogate(bare, kept.args, kept.kwargs, kept.gradients())
        alone = torch.autograd.grad(direct, [p for p in bare.parameters() if p.requires_grad])
        for total, g in zip(expected, alone, strict=True):
            total += g
    assert_same(got, expected)
    assert not torch.equal(images, differentiable_sample(pipe, plan, **call()))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_with_all_steps_computed_it_is_the_plain_call(way: Any) -> None:
    made, cache = way
    pipe = made()
    plain = pipe(**call(), output_type="pt").images
    everything = {k: v for k, v in cache.items() if k != "every"} | {"steps": [*range(N)]}
    with run_by(runner_of(pipe, **everything), pipe, N):
        assert torch.equal(pipe(**call(), output_type="pt").images, plain)
    with run_by(runner_of(pipe, **cache), pipe, N):
        assert not torch.equal(pipe(**call(), output_type="pt").images, plain)
    assert torch.equal(pipe(**call(), output_type="pt").images, plain)


def test_a_denoiser_that_is_held_is_not_run() -> None:
    pipe = stable_diffusion()
    runs, runner = counted(pipe), runner_of(pipe, name="taylor", every=3, last=1)
    differentiable_sample(pipe, PLANS["one kept"], runner=runner, **call())
    assert len(runs) == len({0, 3, 6, 7} | {4})


@pytest.mark.parametrize("made", [stable_diffusion, stable_diffusion_3])
def test_the_first_block_says_whether_a_step_is_held(made: Any) -> None:
    pipe = made()

    def drawn(**cache: Any) -> torch.Tensor:
        with run_by(runner_of(pipe, every=4, **cache), pipe, N):
            return pipe(**call(), output_type="pt").images

    plain = pipe(**call(), output_type="pt").images
    assert torch.equal(drawn(name="cg-taylor", tolerance=1e-9), plain)
    assert torch.equal(drawn(name="cg-taylor", tolerance=1e9), drawn(name="taylor"))
    between = [drawn(name="cg-taylor", tolerance=tolerance) for tolerance in (0.03, 0.06, 0.12, 0.25, 0.5)]
    assert not all(torch.equal(x, plain) or torch.equal(x, drawn(name="taylor")) for x in between)


def test_a_step_that_is_held_runs_the_first_block_alone() -> None:
    pipe, runs = stable_diffusion_3(), []
    for name in ("0", "1"):
        block = pipe.transformer.transformer_blocks.get_submodule(name)
        block.register_forward_hook(lambda *_, name=name: runs.append(name))
    with run_by(runner_of(pipe, name="cg-taylor", every=4, tolerance=1e9), pipe, N):
        pipe(**call())
    assert (runs.count("0"), runs.count("1")) == (N, 3)


def test_order_0_is_ddim_with_fewer_steps() -> None:
    """Two steps of one output are one step of the coarser schedule, for a scheduler linear in both."""
    pipe = double(stable_diffusion_3())
    pipe.scheduler.set_timesteps(N)
    every_second = pipe.scheduler.sigmas[:-1:2].tolist()
    with run_by(runner_of(pipe, name="taylor", order=0, every=2, last=0), pipe, N):
        held = pipe(**call(), output_type="pt").images
    fewer = pipe(**call(sigmas=every_second), output_type="pt").images
    plain = pipe(**call(), output_type="pt").images
    assert (held - fewer).abs().max() < 1e-3 * (plain - fewer).abs().max()


def test_guidance_in_calls_of_its_own_is_held_call_by_call() -> None:
    runner = CheapRunner({"unet": [""]}, lambda _: frozenset({0, 1}), order=1)
    with runner.sampling(4, {"unet": torch.nn.Identity()}), torch.no_grad():
        for step in range(4):
            given = [torch.tensor([1.0 + step]), torch.tensor([10.0 - step])]
            got = [runner(step, "unet", lambda x: x, (x if step < 2 else torch.zeros(1),), {}) for x in given]
            assert torch.equal(torch.cat(got), torch.cat(given))


def test_nothing_is_held_while_predictions_are_off() -> None:
    computed: list[int] = []

    def wild(x: torch.Tensor) -> torch.Tensor:
        computed.append(step)
        return torch.tensor([(-1.0) ** step])

    schedule = frozenset({0, 2, 5})
    for tolerance, expected in ((None, [0, 2, 5]), (0.5, [0, 2, 5, 6, 7])):
        computed.clear()
        runner = CheapRunner({"unet": [""]}, lambda _: schedule, order=1, tolerance=tolerance)
        with runner.sampling(N, {"unet": torch.nn.Identity()}), torch.no_grad():
            for step in range(N):
                runner(step, "unet", wild, (torch.zeros(1),), {})
        assert computed == expected


def test_nothing_is_left_of_a_call_that_raised() -> None:
    pipe = stable_diffusion()
    runner = runner_of(pipe, name="deepcache")
    before = {name: dict(vars(part)) for name, part in pipe.unet.named_modules()}

    def fail(_pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        if step == 2:
            raise RuntimeError("stopped by the test")
        return {}

    with pytest.raises(RuntimeError, match="stopped by the test"):
        differentiable_sample(pipe, PLANS["one kept"], runner=runner, callback_on_step_end=fail, **call())
    after = {name: vars(part).keys() for name, part in pipe.unet.named_modules()}
    assert after == {name: held.keys() for name, held in before.items()}
    first = differentiable_sample(pipe, PLANS["one kept"], runner=runner, **call())
    fresh = differentiable_sample(pipe, PLANS["one kept"], runner=runner_of(pipe, name="deepcache"), **call())
    assert torch.equal(first, fresh)


def test_a_kept_step_that_the_backward_pass_repeats_is_exact_again() -> None:
    pipe = double(stable_diffusion())
    runner = runner_of(pipe, name="deepcache")
    kept, again = (
        differentiable_sample(pipe, make_plan("draft", N, K=2, checkpoint=repeated), runner=runner, **call())
        for repeated in (False, True)
    )
    assert torch.equal(kept, again)
    assert_same(gradients(pipe, again), gradients(pipe, kept))


def test_the_prompts_branch_alone_can_be_kept() -> None:
    pipe = double(stable_diffusion())
    plan = make_plan("sdo", N, draw="fixed", at=[4], guidance="prompt")
    runner = runner_of(pipe, name="taylor")
    images = differentiable_sample(pipe, plan, runner=runner, **call())
    assert torch.equal(images, differentiable_sample(pipe, PLANS["one kept"], runner=runner, **call()))
    assert all(g.abs().max() > 0 for g in gradients(pipe, images))
