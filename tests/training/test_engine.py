"""DeepSpeed engines of two real processes make the steps that one plain optimizer makes, with a restart between."""

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import ray.train
import torch
import torch.distributed
import torch.multiprocessing

from sdo_ray.models.policy import initial_policy
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.calls import ShippedCall
from sdo_ray.rollout.gradient import Gradient
from sdo_ray.rollout.records import Contribution, Seconds
from sdo_ray.training import checkpoints
from sdo_ray.training.engine import make_engine, make_step, policy_weights
from sdo_ray.training.modules import Denoisers, Policy
from sdo_ray.training.optimizer import AnchoredAdamW
from sdo_ray.training.settings import TrainerSettings, TrainingSettings

TRAINING = TrainingSettings(learning_rate=0.01, max_grad_norm=0.5, weight_decay=10.0)
UPDATES, PER_WORKER, WORKERS = 2, 2, 2


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
        for i in range(WORKERS * PER_WORKER):
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
    optimizer = AnchoredAdamW(parameters, TRAINING.learning_rate, TRAINING.weight_decay)
    optimizer.anchor(parameters)
    for batch in contributions(backward, model):
        optimizer.zero_grad()
        for term in module.terms(batch):
            if len(term):
                (-module(term) / sum(c.num_samples for c in batch)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, TRAINING.max_grad_norm)
        optimizer.step()
    return {name: p.detach() for name, p in module.named().items()}


def work(rank: int, directory: str, backward: str, model: ModelSettings, stages: Sequence[int]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORKERS), "DS_ACCELERATOR": "cpu"}
    os.environ["CXX"] = "/no/compiler"  # none is needed
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{directory}/rendezvous",
        rank=rank,
        world_size=WORKERS,
        timeout=timedelta(minutes=3),
    )
    for stage in stages:
        engine = make_engine(module_of(backward, model), TRAINING, TrainerSettings(zero_stage=stage), PER_WORKER)
        for update, batch in enumerate(contributions(backward, model)):
            mine = batch[rank * PER_WORKER : (rank + 1) * PER_WORKER]
            norm = make_step(
                engine, engine.module.terms(mine), sum(c.num_samples for c in mine), TRAINING.learning_rate
            )
            assert norm is not None
            assert norm > TRAINING.max_grad_norm
            if update == 0:  # everybody dies, and goes on from the checkpoint
                checkpoint = Path(directory) / f"checkpoint-{stage}"
                checkpoints.write(engine, checkpoint, 1, [], policy_weights(engine), None)
                torch.distributed.barrier()
                engine.destroy()
                engine = make_engine(
                    module_of(backward, model), TRAINING, TrainerSettings(zero_stage=stage), PER_WORKER
                )
                assert checkpoints.restore(engine, ray.train.Checkpoint.from_directory(str(checkpoint))) == (1, [])
        weights = policy_weights(engine)  # of the first worker
        assert bool(weights) == (rank == 0)
        if weights:
            torch.save(weights, f"{directory}/{stage}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("backward", "train", "stages"), [("sampler", "lora", (1, 2)), ("trainer", "full", (1, 2, 3))])
def test_two_workers_make_the_steps_of_one_optimizer(
    tiny_base: Path, tmp_path: Path, backward: str, train: str, stages: Sequence[int]
) -> None:
    model = ModelSettings(base=str(tiny_base), train=train)
    torch.multiprocessing.spawn(work, (str(tmp_path), backward, model, stages), nprocs=WORKERS)
    expected, start = plain(backward, model), initial_policy(model, 0)
    assert max((expected[name] - start[name]).abs().max() for name in start) > 0.005
    for stage in stages:
        weights = torch.load(tmp_path / f"{stage}.pt", weights_only=True)
        assert weights.keys() == expected.keys()
        for name in expected:
            # Sums are made in another order, and Adam divides by the size of what may be nearly zero.
            torch.testing.assert_close(weights[name], expected[name], rtol=0, atol=2e-4, msg=f"{stage} {name}")
