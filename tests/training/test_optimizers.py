"""Engines with each optimizer make its own steps, also from a checkpoint; offloading changes but rounding."""

from pathlib import Path
from typing import Any

import pytest
import ray.train
import torch

from rewards.pulls import Memory
from sdo_ray.training.engine import make_engine, make_step, policy_weights
from sdo_ray.training.modules import Policy
from sdo_ray.training.optimizer import make_optimizer
from sdo_ray.training.optimizer_state import gather_state
from sdo_ray.training.saving import Content, restore
from sdo_ray.training.settings import TrainerSettings, TrainingSettings

WEIGHTS = {"a": torch.linspace(-1, 1, 48).reshape(6, 8), "b": torch.linspace(1, 2, 16).reshape(4, 4)}
UPDATES, CLIP, LR = 4, 0.5, 0.1

pytestmark = pytest.mark.usefixtures("group_of_one")


def gradients() -> list[torch.Tensor]:
    noise = torch.Generator().manual_seed(0)
    return [torch.randn(64, generator=noise) for _ in range(UPDATES)]


def engine_of(optimizer: str, trainers: TrainerSettings, clip: float = CLIP) -> Any:
    training = TrainingSettings(optimizer=optimizer, learning_rate=LR, max_grad_norm=clip)
    return make_engine(Policy(WEIGHTS), training, trainers, 1)


def stepped(engine: Any, steps: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    for gradient in steps:
        norm = make_step(engine, [gradient], 1, LR)
        assert norm == pytest.approx(float(gradient.norm()), rel=1e-5)
    return policy_weights(engine)


def plain(name: str) -> dict[str, torch.Tensor]:
    parameters = {key: torch.nn.Parameter(weight.clone()) for key, weight in WEIGHTS.items()}
    optimizer = make_optimizer(name, list(parameters.values()), LR)
    for gradient in gradients():
        for parameter, part in zip(parameters.values(), gradient.split([48, 16]), strict=True):
            parameter.grad = -part.reshape(parameter.shape)
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), CLIP)
        optimizer.step()
    return {key: parameter.detach() for key, parameter in parameters.items()}


@pytest.mark.parametrize("name", ["adamw", "adamw-8bit", "adafactor", "lion", "muon"])
def test_without_zero_it_is_the_optimizer_itself_also_from_a_checkpoint(name: str, tmp_path: Path) -> None:
    if name in ("adamw-8bit", "lion"):
        pytest.importorskip("bitsandbytes")
    trainers, steps, expected = TrainerSettings(zero_stage=0), gradients(), plain(name)
    whole = stepped(engine_of(name, trainers), steps)
    for key in expected:
        torch.testing.assert_close(whole[key], expected[key], rtol=1e-5, atol=1e-6)
        assert (expected[key] - WEIGHTS[key]).abs().max() > LR / 10
    first = engine_of(name, trainers)
    weights = stepped(first, steps[:2])
    Content(2, Memory(), weights, {}, gather_state(first)).write(tmp_path / "checkpoint")
    again = engine_of(name, trainers)
    restore(again, ray.train.Checkpoint.from_directory(str(tmp_path / "checkpoint")))
    resumed = stepped(again, steps[2:])
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)
    # A gradient that is not finite makes no step.
    assert make_step(again, [torch.full((64,), float("inf"))], 1, LR) is None
    assert all(torch.equal(policy_weights(again)[key], whole[key]) for key in whole)


@pytest.mark.parametrize("stage", [1, 2])
def test_offloading_to_the_cpu_changes_nothing_but_rounding(stage: int, tmp_path: Path) -> None:
    here = stepped(engine_of("adamw", TrainerSettings(zero_stage=stage)), gradients())
    offloaded = TrainerSettings(zero_stage=stage, offload="cpu")
    first = engine_of("adamw", offloaded)
    weights = stepped(first, gradients()[:2])
    Content(2, Memory(), weights, {}, gather_state(first)).write(tmp_path / "checkpoint")
    again = engine_of("adamw", offloaded)
    restore(again, ray.train.Checkpoint.from_directory(str(tmp_path / "checkpoint")))
    there = stepped(again, gradients()[2:])
    for name in here:  # the norm's squares are added in another order
        torch.testing.assert_close(here[name], there[name], rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize("stage", [1, 2])
def test_offloading_of_updates_that_are_not_clipped_changes_no_bit(stage: int) -> None:
    here, there = (
        stepped(engine_of("adamw", TrainerSettings(zero_stage=stage, offload=offload), clip=1e6), gradients())
        for offload in ("none", "cpu")
    )
    assert all(torch.equal(here[name], there[name]) for name in here)
    assert all((here[name] - WEIGHTS[name]).abs().max() > LR for name in here)
