"""DeepSpeed engines of real processes make the steps of one plain optimizer, with a restart between, by others too."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import deepspeed
import pytest
import ray.train
import torch
import torch.distributed
import torch.multiprocessing

from rewards.pulls import Memory, Pull
from sdo_ray.models.policy import initial_policy
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.calls import ShippedCall
from sdo_ray.rollout.gradient import Gradient
from sdo_ray.rollout.records import Contribution, Seconds
from sdo_ray.training.engine import make_engine, make_step, policy_weights
from sdo_ray.training.manifest import MANIFEST
from sdo_ray.training.modules import Denoisers, Policy
from sdo_ray.training.optimizer import make_optimizer, pull_back
from sdo_ray.training.optimizer_state import gather_state
from sdo_ray.training.saving import Content, restore
from sdo_ray.training.settings import TrainerSettings, TrainingSettings

TRAINING = TrainingSettings(learning_rate=0.01, max_grad_norm=0.5, weight_decay=10.0)
UPDATES, TOTAL = 2, 4
RESUMED = {1: ((2, 2),), 2: ((1, 2), (2, 1)), 3: ((1, 2), (2, 1))}
"""ZeRO stage -> workers of the first update, and of the second."""
MEMORY = Memory().after({"a": Pull(2.0, 1.0, 1.0, 2.0, 3.0)})


def cases(stages: Sequence[int]) -> list[tuple[int, tuple[int, int]]]:
    return [(stage, workers) for stage in stages for workers in RESUMED[stage]]


def contribution(gradient: dict[str, torch.Tensor], calls: Sequence[ShippedCall], num_samples: int) -> Contribution:
    return Contribution(0, 0, 0, num_samples, 0, {}, [], {}, Seconds(0, 0, 0), Gradient.of(gradient), tuple(calls))


def kept_call(noise: torch.Generator) -> ShippedCall:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=noise)

    kwargs = {"encoder_hidden_states": normal(2, 7, 16), "return_dict": False}
    return ShippedCall("unet", (normal(2, 4, 8, 8), torch.tensor(500)), kwargs, [normal(2, 4, 8, 8)])


def contributions(backward: str, model: ModelSettings) -> list[list[Contribution]]:
    """For each update those of all workers; samples counted differ, and one contribution has none."""
    noise = torch.Generator().manual_seed(3)
    policy = initial_policy(model, 0)
    made = []
    for _ in range(UPDATES):
        made.append([])
        for i in range(TOTAL):
            gradient, calls = {}, []
            if backward == "sampler":
                gradient = {name: torch.randn(w.shape, generator=noise) for name, w in policy.items()}
            else:
                calls = [kept_call(noise), kept_call(noise)]
            if i == 0:
                gradient, calls = {}, []
            made[-1].append(contribution(gradient, calls, 2 * i))
    return made


def module_of(backward: str, model: ModelSettings) -> Policy | Denoisers:
    weights = initial_policy(model, 0)
    return Policy(weights) if backward == "sampler" else Denoisers(model, weights)


def plain(backward: str, model: ModelSettings) -> dict[str, torch.Tensor]:
    module = module_of(backward, model)
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = make_optimizer("adamw", parameters, TRAINING.learning_rate)
    pull_back(optimizer, parameters, TRAINING.weight_decay)
    for batch in contributions(backward, model):
        optimizer.zero_grad()
        for term in module.terms(batch):
            if len(term):
                (-module(term) / sum(c.num_samples for c in batch)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, TRAINING.max_grad_norm)
        optimizer.step()
    return {name: p.detach() for name, p in module.named().items()}


@contextmanager
def group(directory: str, name: str, rank: int, workers: int) -> Iterator[None]:
    """A process group of the first so many workers, of whom this is one."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(workers), "DS_ACCELERATOR": "cpu"}
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{directory}/{name}",
        rank=rank,
        world_size=workers,
        timeout=timedelta(minutes=3),
    )
    try:
        yield
    finally:
        deepspeed.comm.destroy_process_group()  # DeepSpeed keeps groups of its own, which only its own call forgets


def work(rank: int, directory: str, backward: str, model: ModelSettings, stages: Sequence[int]) -> None:
    """Update 0 by some workers, who then die, and update 1 by as many or others, from their checkpoint."""
    torch.set_num_threads(1)
    os.environ["CXX"] = "/no/compiler"  # none is needed
    for stage, workers in cases(stages):
        name = f"{stage}-{workers[0]}-{workers[1]}"
        checkpoint = Path(directory) / f"checkpoint-{name}"
        for update, count in enumerate(workers):
            # Where one is enough the other does the same alone: DeepSpeed counts modules, and all have to be as far.
            place = rank if count > 1 else 0
            with group(directory, f"{name}-{update}-group-{rank - place}", place, count):
                share = TOTAL // count
                engine = make_engine(module_of(backward, model), TRAINING, TrainerSettings(zero_stage=stage), share)
                if update:
                    made = restore(engine, ray.train.Checkpoint.from_directory(str(checkpoint)))
                    assert (made.update, made.memory) == (1, MEMORY)
                mine = contributions(backward, model)[update][place * share : (place + 1) * share]
                samples = sum(c.num_samples for c in mine)
                norm = make_step(engine, engine.module.terms(mine), samples, TRAINING.learning_rate)
                assert norm is not None
                assert norm > TRAINING.max_grad_norm
                weights, state = policy_weights(engine), gather_state(engine)
                assert bool(weights) == bool(state) == (place == 0)  # the first worker's alone
                if rank == 0 and not update:
                    Content(1, MEMORY, weights, {}, state).write(checkpoint)
                elif rank == 0:
                    torch.save(weights, f"{directory}/{name}.pt")
                engine.destroy()
            while not (checkpoint / MANIFEST).exists():
                time.sleep(0.05)


@pytest.mark.parametrize(("backward", "train", "stages"), [("sampler", "lora", (1, 2)), ("trainer", "full", (1, 2, 3))])
def test_workers_of_any_number_make_the_steps_of_one_optimizer(
    tiny_base: Path, tmp_path: Path, backward: str, train: str, stages: Sequence[int]
) -> None:
    model = ModelSettings(base=str(tiny_base), train=train)
    torch.multiprocessing.spawn(work, (str(tmp_path), backward, model, stages), nprocs=2)
    expected, start = plain(backward, model), initial_policy(model, 0)
    assert max((expected[name] - start[name]).abs().max() for name in start) > 0.005
    for stage, (first, then) in cases(stages):
        weights = torch.load(tmp_path / f"{stage}-{first}-{then}.pt", weights_only=True)
        assert weights.keys() == expected.keys()
        for name in expected:
            # Sums are made in another order, and Adam divides by the size of what may be nearly zero.
            torch.testing.assert_close(
                weights[name], expected[name], rtol=0, atol=2e-4, msg=f"{stage}, {first} to {then}: {name}"
            )
