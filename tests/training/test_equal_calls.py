"""Two workers whose contributions call different denoisers, or none, end up with the same sequence of calls."""

from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from sdo_ray.rollout.calls import ShippedCall
from sdo_ray.training.equal_calls import equal_calls

TERMS = [["b", "aa"], ["", ""], ["ab", ""]], [["a", "b"], ["", ""], ["a", "a"]]
"""For two updates the denoisers that each worker's terms call: of three terms, (worker 0's, worker 1's)."""


def call(denoiser: str, number: float) -> ShippedCall:
    return ShippedCall(denoiser, (torch.full((2,), number),), {"t": 1}, [torch.full((2,), number)])


def work(rank: int, directory: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{directory}/meet", rank=rank, world_size=2)
    for terms in TERMS:
        own = [[call(name, 1 + 10 * i + rank) for name in workers[rank]] for i, workers in enumerate(terms)]
        filled = equal_calls(own, ["a", "b", "never"], torch.device("cpu"))
        sequence: list[list[list[str]] | None] = [None, None]
        torch.distributed.all_gather_object(sequence, [[c.denoiser for c in term] for term in filled])
        assert sequence[0] == sequence[1]
        assert all(term for term in filled)
        for mine, term in zip(own, filled, strict=True):
            learning = [c for c in term if any(g.any() for g in c.gradients)]
            assert sorted(map(id, learning)) == sorted(map(id, mine))
            assert all(c.args[0].all() for c in term)  # inputs of a call that really was
    torch.distributed.destroy_process_group()


@pytest.mark.timeout(120)
def test_calls_are_filled_up_without_a_gradient(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
