"""Several rewards on one network behind one Ray actor: its weights are there once, and one forward pass serves all.

As `rewards.service`, torch is imported by the actor alone.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rewards.half import to_half
from rewards.provenance import provenance
from rewards.registry import RewardError, create, reward_class
from rewards.spec import RewardSpec, inspect_spec

Answer = Mapping[str, tuple[np.ndarray, Any]]
"""Key of a reward -> scores, float32 [B], and gradients or None, as `RewardActor.score_together` has them."""


@dataclass(frozen=True)
class Member:
    """One of the rewards."""

    name: str
    """Name or import path."""

    options: Mapping[str, Any]


class SharedActor:
    """Scores batches with several rewards.

    Args:
        members: by key.
        num_threads: torch threads of this process.
        device: where they compute.
        offload: whether the weights are on the device only while they score, see `rewards.offload`.

    Raises:
        RewardError: a reward or an option that cannot be, or rewards that do not rest on one network.
    """

    def __init__(self, members: Mapping[str, Member], num_threads: int, device: str, offload: bool = False) -> None:
        import torch

        from rewards.offload import on_device
        from rewards.service import latency  # which imports Ray
        from rewards.towers.sharing import shared_networks

        torch.set_num_threads(num_threads)
        self._members = dict(members)
        self._specs = {key: inspect_spec(reward_class(member.name)) for key, member in members.items()}
        rests: dict[str, str] = {}
        with shared_networks() as networks:
            self._rewards = {}
            for key, member in members.items():
                before = len(networks.asked)
                filled_in = {"device": device} if "device" in self._specs[key].options else {}
                self._rewards[key] = create(member.name, **{**filled_in, **member.options})
                rests[key] = " and ".join(str(request[0]) for request in networks.asked[before:])
        if len(networks.loaded) != 1 or not all(rests.values()):
            raise RewardError(
                "share",
                f"rewards that share an actor rest on one network, with one `dtype`; here {_listed(rests)}",
                fix="give those on others no `share`, or one of their own",
            )
        self._on_device = on_device(self._rewards.values(), device, offload)
        self._latency = latency(" and ".join(members))

    def score_together(
        self,
        texts: list[Mapping[str, list[str]]],
        want_gradient: Mapping[str, bool],
        seeds: list[list[int]],
        *images: np.ndarray,
    ) -> tuple[Any, ...]:
        """Scores of several batches, see `RewardActor.score_together`.

        Args:
            texts: for each batch, what each reward that is asked is given.
            want_gradient: of each of these.
            seeds: nothing is drawn.
            images: of each batch.

        Returns:
            For each batch the scores and gradients or None of each reward, by key; last the seconds it took.
        """
        start = time.perf_counter()
        if any(self._specs[key].batchwise for key in want_gradient):
            answers = [self._score(batch, asked, want_gradient) for batch, asked in zip(images, texts, strict=True)]
        else:
            together = {key: [text for batch in texts for text in batch[key]] for key in want_gradient}
            found = self._score(np.concatenate(images), together, want_gradient)
            answers = _cut(found, [len(batch) for batch in images])
        if images[0].dtype == np.float16:
            answers = [_halved(part) for part in answers]
        seconds = time.perf_counter() - start
        self._latency.observe(seconds)
        return (*answers, seconds)

    def provenance(self) -> dict[str, dict[str, Any]]:
        """Of each reward, see `rewards.provenance`."""
        return {
            key: provenance(member.name, self._rewards[key], member.options, self._specs[key])
            for key, member in self._members.items()
        }

    def spec(self) -> dict[str, RewardSpec]:
        """What each reward is, without its options."""
        return {key: replace(spec, options={}) for key, spec in self._specs.items()}

    def _score(self, images: np.ndarray, texts: Mapping[str, list[str]], want_gradient: Mapping[str, bool]) -> Answer:
        import torch

        from rewards.scoring import score_on_one_network

        with self._on_device():
            found = score_on_one_network(
                [self._rewards[key] for key in want_gradient],
                torch.tensor(images),  # a copy: what Ray hands over is read-only
                [texts[key] for key in want_gradient],
                list(want_gradient.values()),
            )
        return {
            key: (scores.numpy(), None if gradient is None else gradient.numpy())
            for key, (scores, gradient) in zip(want_gradient, found, strict=True)
        }


def _cut(found: Answer, sizes: Sequence[int]) -> list[Answer]:
    """What was found for several batches as one, by batch."""
    ends = np.cumsum(sizes)
    slices = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    return [{key: (s[part], None if g is None else g[part]) for key, (s, g) in found.items()} for part in slices]


def _halved(found: Answer) -> Answer:
    return {key: (s, None if g is None else to_half(g)) for key, (s, g) in found.items()}


def _listed(rests: Mapping[str, str]) -> str:
    return ", ".join(f"{key} rests on {network or 'none that can be shared'}" for key, network in rests.items())
