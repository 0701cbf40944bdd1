"""The same calls of the same denoisers, in the same order, on every worker.

ZeRO-3 gathers a layer's weights from all workers when the layer is called, and ZeRO-2 reduces gradients in the order in
which they are made: workers that call other layers, or none, would wait for one another for ever, or add up gradients
of different parameters. Who has fewer calls of a denoiser than another repeats one of them, whoever's, with zero
gradients, which adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.distributed

from sdo_ray.rollout.calls import ShippedCall, dump_calls, load_calls

Terms = Sequence[Sequence[ShippedCall]]


def equal_calls(terms: Terms, denoisers: Sequence[str], device: torch.device) -> list[list[ShippedCall]]:
    """This worker's terms, filled up with calls that add nothing; to be called by all workers.

    Args:
        terms: the calls of each, of which some have none; as many as every other worker's, and some worker has a call.
        denoisers: names of all, the same on all workers.
        device: of the process group's tensors.
    """
    own = [{name: [call for call in term if call.denoiser == name] for name in denoisers} for term in terms]
    needed = torch.tensor([[len(term[name]) for name in denoisers] for term in own], device=device)
    torch.distributed.all_reduce(needed, torch.distributed.ReduceOp.MAX)
    # A term that no worker has a call of goes through a denoiser too: the engine takes no term without a gradient.
    needed[needed.sum(dim=1) == 0, int(needed.sum(dim=0).argmax())] = 1
    used = [name for name, count in zip(denoisers, needed.sum(dim=0).tolist(), strict=True) if count]
    idle = {name: _idle([call for term in own for call in term[name]], device) for name in used}
    filled = []
    for term, counts in zip(own, needed.tolist(), strict=True):
        wanted = dict(zip(denoisers, counts, strict=True))
        filled.append([c for name in used for c in term[name] + [idle[name]] * (wanted[name] - len(term[name]))])
    return filled


def _idle(calls: Sequence[ShippedCall], device: torch.device) -> ShippedCall:
    """A call of a denoiser with zero gradients: of this worker if it has one, else of the first that does."""
    sizes = torch.zeros(torch.distributed.get_world_size(), dtype=torch.int64, device=device)
    call = replace(calls[0], gradients=[torch.zeros_like(g) for g in calls[0].gradients]) if calls else None
    data = dump_calls([call]) if call is not None else b""
    sizes[torch.distributed.get_rank()] = len(data)
    torch.distributed.all_reduce(sizes)
    if (sizes > 0).all():
        assert call is not None
        return call
    source = int((sizes > 0).nonzero()[0])
    sent = torch.frombuffer(bytearray(data.ljust(int(sizes[source]))[: int(sizes[source])]), dtype=torch.uint8)
    sent = sent.to(device)
    torch.distributed.broadcast(sent, src=source)
    return call or load_calls(sent.cpu().numpy().tobytes())[0]
