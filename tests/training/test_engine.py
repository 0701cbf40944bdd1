"""DeepSpeed engines of real processes make the steps of one plain optimizer, with a restart between, by others too."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
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
WHOLE = ((1, (2, 2)), (2, (1, 2)), (2, (2, 1)))
SHARDED = ((3, (1, 2)), (3, (2, 1)))
ROUNDED = {"float32": 1e-5, "bfloat16": 0.1}
"""Type that a module computes with -> how far the gradient is from float32's, as a share of its norm."""
MEMORY = Memory().after({"a": Pull(2.0, 1.0, 1.0, 2.0, 3.0)})


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


def start_of(model: ModelSettings) -> dict[str, torch.Tensor]:
    """With digits that bfloat16 does not have."""
    noise = torch.Generator().manual_seed(1)
    return {name: w + 1e-3 * torch.randn(w.shape, generator=noise) for name, w in initial_policy(model, 0).items()}


def module_of(backward: str, model: ModelSettings, dtype: str) -> Policy | Denoisers:
    return Policy(start_of(model)) if backward == "sampler" else Denoisers(model, start_of(model), dtype)


def gradient_at(
    weights: dict[str, torch.Tensor], backward: str, model: ModelSettings, update: int
) -> dict[str, torch.Tensor]:
    """Of an update, in float32 and in one process."""
    module, batch = module_of(backward, model, "float32"), contributions(backward, model)[update]
    for name, parameter in module.named().items():
        parameter.data.copy_(weights[name])
    for term in module.terms(batch):
        if len(term):
            (-module(term) / sum(c.num_samples for c in batch)).backward()
    return {name: p.grad for name, p in module.named().items() if p.grad is not None}


def stepped(start: dict[str, torch.Tensor], gradients: Sequence[dict[str, torch.Tensor]]) -> list[dict]:
    """The policies after each update, by AdamW of torch."""
    policy = {name: w.clone().requires_grad_() for name, w in start.items()}
    optimizer, made = make_optimizer("adamw", list(policy.values()), TRAINING.learning_rate), []
    pull_back(optimizer, policy.values(), TRAINING.weight_decay)
    for gradient in gradients:
        for name, weights in policy.items():
            weights.grad = gradient[name].clone()
        torch.nn.utils.clip_grad_norm_(policy.values(), TRAINING.max_grad_norm)
        optimizer.step()
        made.append({name: w.detach().clone() for name, w in policy.items()})
    return made


def recorded(module: Policy | Denoisers) -> dict[str, torch.Tensor]:
    """Filled with the sums, in float32, of the gradients that arrive at a module."""
    sums = {name: torch.zeros(p.ds_shape if hasattr(p, "ds_shape") else p.shape) for name, p in module.named().items()}

    def add(total: torch.Tensor, gradient: torch.Tensor) -> None:
        total += gradient

    for name, parameter in module.named().items():
        parameter.register_hook(partial(add, sums[name]))
    return sums


def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for _, tensor in sorted(tensors.items())])


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


@dataclass(frozen=True)
class Case:
    """Update 0 by some workers, and update 1 by as many or others."""

    backward: str
    train: str
    dtype: str
    stage: int
    workers: tuple[int, int]
    """Of each update."""

    def __str__(self) -> str:
        return f"{self.train}-{self.dtype}-stage {self.stage}-{self.workers[0]} and {self.workers[1]}"

    def model(self, base: str) -> ModelSettings:
        return ModelSettings(base=base, train=self.train, dtype=self.dtype)


CASES = [
    *(Case("sampler", "lora", "float32", *how) for how in WHOLE),
    *(Case("trainer", "full", "float32", *how) for how in (*WHOLE, *SHARDED)),
    *(Case("trainer", "full", "bfloat16", *how) for how in (*WHOLE[:2], *SHARDED[1:])),
]


def work(rank: int, directory: str, base: str) -> None:
    """Each case in turn, with update 1 from the checkpoint of the workers of update 0, who have died."""
    torch.set_num_threads(1)
    os.environ["CXX"] = "/no/compiler"  # none is needed
    for case in CASES:
        name, workers, backward, model, dtype = str(case), case.workers, case.backward, case.model(base), case.dtype
        checkpoint = Path(directory) / f"checkpoint-{name}"
        for update, count in enumerate(workers):
            # Where one is enough the other does the same alone: DeepSpeed counts modules, and all have to be as far.
            place = rank if count > 1 else 0
            with group(directory, f"{name}-{update}-group-{rank - place}", place, count):
                share = TOTAL // count
                trainers = TrainerSettings(zero_stage=case.stage, dtype=dtype)
                engine = make_engine(module_of(backward, model, dtype), TRAINING, trainers, share)
                if update:
                    made = restore(engine, ray.train.Checkpoint.from_directory(str(checkpoint)))
                    assert (made.update, made.memory) == (1, MEMORY)
                mine = contributions(backward, model)[update][place * share : (place + 1) * share]
                samples, gradient = sum(c.num_samples for c in mine), recorded(engine.module)
                norm = make_step(engine, engine.module.terms(mine), samples, TRAINING.learning_rate)
                assert norm is not None
                assert norm > TRAINING.max_grad_norm
                weights, state = policy_weights(engine), gather_state(engine)
                assert bool(weights) == bool(state) == (place == 0)  # the first worker's alone
                if rank == 0 and not update:
                    Content(1, MEMORY, weights, {}, state).write(checkpoint)
                elif rank == 0:
                    torch.save(weights, f"{directory}/{name}.pt")
                if rank == place:
                    torch.save(gradient, f"{directory}/{name}-{update}-{place}.gradient.pt")
                engine.destroy()
            while not (checkpoint / MANIFEST).exists():
                time.sleep(0.05)


@pytest.fixture(scope="module")
def worked(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes, whose start takes longest, wrote of all cases."""
    directory = tmp_path_factory.mktemp("engines")
    torch.multiprocessing.spawn(work, (str(directory), str(tiny_base)), nprocs=2)
    return directory


@pytest.mark.parametrize("case", CASES, ids=str)
def test_workers_of_any_number_make_the_steps_of_one_optimizer(tiny_base: Path, worked: Path, case: Case) -> None:
    model = case.model(str(tiny_base))
    start, gradients = start_of(model), []
    for update, count in enumerate(case.workers):
        parts = [
            torch.load(worked / f"{case}-{update}-{place}.gradient.pt", weights_only=True) for place in range(count)
        ]
        gradients.append({key: sum(part[key] for part in parts) / count for key in start})
    policies = stepped(start, gradients)
    for update, weights in enumerate([start, policies[0]]):
        exact = flat(gradient_at(weights, case.backward, model, update))
        assert (flat(gradients[update]) - exact).norm() < ROUNDED[case.dtype] * exact.norm()
    weights = torch.load(worked / f"{case}.pt", weights_only=True)
    assert weights.keys() == start.keys()
    assert max((weights[key] - start[key]).abs().max() for key in start) > 0.005
    # Sums are made in another order, and Adam divides by the size of what may be nearly zero.
    torch.testing.assert_close(flat(weights), flat(policies[-1]), rtol=0, atol=1e-5)
