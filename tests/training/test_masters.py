"""Modules of bfloat16 learn by float32 masters: no step is too small, and checkpoints have all, for either type."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray.train
import torch

from rewards.pulls import Memory
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.calls import ShippedCall
from sdo_ray.training.engine import make_engine, make_step, policy_weights
from sdo_ray.training.modules import Denoisers
from sdo_ray.training.optimizer_state import gather_state
from sdo_ray.training.saving import Content, restore
from sdo_ray.training.settings import TrainerSettings, TrainingSettings
from tests.training.test_engine import flat, kept_call, recorded, start_of

LR, UPDATES = 1e-5, 4
"""Of bfloat16, numbers from 0.125 to 0.25 are 1e-3 apart."""

pytestmark = pytest.mark.usefixtures("group_of_one")


def engine_of(model: ModelSettings, dtype: str = "bfloat16", terms: int = 1, **trainers: Any) -> Any:
    training = TrainingSettings(learning_rate=LR, backward="trainer", max_grad_norm=1e6)
    module, trainers = Denoisers(model, start_of(model), dtype), {"dtype": dtype, **trainers}
    return make_engine(module, training, TrainerSettings.model_validate(trainers), terms)


def term(seed: int = 4) -> list[ShippedCall]:
    """The same whenever it is asked for."""
    return [kept_call(torch.Generator().manual_seed(seed))]


def step(engine: Any, calls: list[ShippedCall]) -> None:
    assert make_step(engine, [calls], 2, LR) is not None


def checkpoint(engine: Any, directory: Path) -> ray.train.Checkpoint:
    Content(1, Memory(), policy_weights(engine), {}, gather_state(engine)).write(directory)
    return ray.train.Checkpoint.from_directory(str(directory))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_steps_that_bfloat16_does_not_see_add_up_also_from_a_checkpoint(
    tiny_base: Path, tmp_path: Path, stage: int
) -> None:
    """As long as the gradient stays nearly the same, each of Adam's steps is of the step size."""
    model = ModelSettings(base=str(tiny_base), train="full", dtype="bfloat16")
    engine, start = engine_of(model, zero_stage=stage), start_of(model)
    assert {p.dtype for p in engine.module.parameters()} == {torch.bfloat16}
    policy = policy_weights(engine)
    assert all(torch.equal(policy[name], start[name]) for name in start)
    assert any(not torch.equal(w.bfloat16().float(), w) for w in start.values())
    gradient = recorded(engine.module)
    for update in range(UPDATES):
        if update == 2:
            halfway = checkpoint(engine, tmp_path / "checkpoint")
        step(engine, term())
    moved, sums = flat(policy_weights(engine)) - flat(start), flat(gradient)
    clear = sums.abs() > 1e-2 * sums.abs().max()
    assert clear.sum() > 100
    torch.testing.assert_close(moved[clear], -UPDATES * LR * sums[clear].sign(), rtol=0, atol=LR / 2)
    again = engine_of(model, zero_stage=stage)
    restore(again, halfway)
    for _ in range(2, UPDATES):
        step(again, term())
    whole, resumed = policy_weights(engine), policy_weights(again)
    assert all(torch.equal(whole[name], resumed[name]) for name in start)


@pytest.mark.parametrize("dtypes", [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_either_type_goes_on_from_the_other(tiny_base: Path, tmp_path: Path, dtypes: tuple[str, str]) -> None:
    model = ModelSettings(base=str(tiny_base), train="full", dtype="bfloat16")
    first, then = (engine_of(model, dtype) for dtype in dtypes)
    step(first, term())
    restore(then, checkpoint(first, tmp_path / "checkpoint"))
    policies, states = [policy_weights(e) for e in (first, then)], [gather_state(e) for e in (first, then)]
    assert all(torch.equal(policies[0][name], policies[1][name]) for name in policies[0])
    for key, tensors in states[0].items():
        assert all(torch.equal(states[1][key][name], tensor) for name, tensor in tensors.items())
    step(then, term())


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_gradient_that_is_not_finite_makes_no_step(tiny_base: Path, stage: int) -> None:
    model = ModelSettings(base=str(tiny_base), train="lora", dtype="bfloat16")
    engine, start = engine_of(model, zero_stage=stage), start_of(model)
    broken = [replace(call, gradients=[g * torch.inf for g in call.gradients]) for call in term()]
    assert make_step(engine, [broken], 2, LR) is None
    policy = policy_weights(engine)
    assert all(torch.equal(policy[name], start[name]) for name in start)
    step(engine, term())
    assert not torch.equal(flat(policy_weights(engine)), flat(start))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_offloading_adds_gradients_up_in_float32_too(tiny_base: Path, stage: int) -> None:
    """To the bit, as nothing is clipped."""
    model = ModelSettings(base=str(tiny_base), train="full", dtype="bfloat16")
    here, there = (engine_of(model, zero_stage=stage, offload=offload, terms=3) for offload in ("none", "cpu"))
    for engine in (here, there):
        for seed in range(2):
            assert make_step(engine, [term(seed), term(seed + 1), term(seed + 2)], 2, LR) is not None
    assert torch.equal(flat(policy_weights(here)), flat(policy_weights(there)))
