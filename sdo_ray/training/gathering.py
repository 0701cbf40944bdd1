"""What every worker must know of an update: the numbers of all contributions, and that none is missing.

Numbers travel between workers as one tensor of a size that all of them know beforehand; objects are pickled only where
a batch failed, for its cause, or its sampler looked at held-out prompts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, fields, replace
from itertools import combinations
from typing import Any

import torch
import torch.distributed

from rewards.pulls import Pull
from sdo_ray.rollout.looks import HeldOutMeans
from sdo_ray.rollout.numbers import GROUP_NUMBERS
from sdo_ray.rollout.records import Contribution, Seconds

_COUNTS = ("update", "policy_version", "first_row", "num_samples", "num_skipped", "num_splits")
_SECONDS = ("sampling", "rewarding", "backward")
_PULL = len(fields(Pull))


def gather_numbers(
    mine: Sequence[Contribution], rewards: Sequence[str], samples: int, device: torch.device
) -> list[Contribution]:
    """All workers' contributions to an update, without gradients, in the order of their rows; called by all workers.

    Args:
        mine: this worker's, one or more, as many as every other's.
        rewards: keys of the scores.
        samples: of each contribution.
        device: of the process group's tensors.
    """
    widest = torch.tensor(max(len(contribution.step_norms) for contribution in mine), device=device)
    torch.distributed.all_reduce(widest, torch.distributed.ReduceOp.MAX)
    steps = int(widest)
    table = torch.tensor([_row(c, rewards, samples, steps) for c in mine], dtype=torch.float64, device=device)
    tables = [torch.empty_like(table) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(tables, table)
    everyone = [_contribution(row, rewards, samples) for part in tables for row in part.tolist()]
    if any(c.failure is not None or c.held_out is not None for c in everyone):
        rare: list[Any] = [None] * len(tables)
        torch.distributed.all_gather_object(rare, {c.first_row: (c.failure, c.held_out) for c in mine})
        known = {row: values for part in rare for row, values in part.items()}
        everyone = [replace(c, failure=known[c.first_row][0], held_out=known[c.first_row][1]) for c in everyone]
    return sorted(everyone, key=lambda contribution: contribution.first_row)


def check_rows(everyone: Sequence[Contribution], update: int, count: int, rows: int) -> None:
    """See that an update's contributions are of its rows, each once.

    Args:
        everyone: contributions of all workers.
        update: from 0.
        count: contributions of an update.
        rows: prompts of each.

    Raises:
        RuntimeError: with the first rows of the sampler batches that are missing, or there twice, or of another update.
    """
    first = update * count * rows
    expected = range(first, first + count * rows, rows)
    arrived = Counter(contribution.first_row for contribution in everyone)
    wrong = {
        "missing": [row for row in expected if row not in arrived],
        "there more than once": [row for row, times in arrived.items() if times > 1],
        "of another update": [row for row in arrived if row not in expected],
    }
    if found := "; ".join(f"{what}: {_some(batches)}" for what, batches in wrong.items() if batches):
        raise RuntimeError(f"update {update} did not get its {count} sampler batches, by their first rows {found}")


def _some(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")


def _row(contribution: Contribution, rewards: Sequence[str], samples: int, steps: int) -> list[float]:
    """A contribution as numbers; what it has fewer of is filled up with NaN."""
    numbers = [float(getattr(contribution, name)) for name in _COUNTS] + [
        float(x is not None) for x in (contribution.failure, contribution.held_out)
    ]
    numbers += [getattr(contribution.seconds, name) for name in _SECONDS]
    numbers += [contribution.groups.get(name, math.nan) for name in GROUP_NUMBERS]
    numbers += _filled(contribution.mixed, samples)
    for reward in rewards:
        numbers += _filled(contribution.scores.get(reward, []), samples)
    for reward in rewards:
        pull = contribution.pulls.get(reward)
        numbers += _filled(() if pull is None else astuple(pull), _PULL)
    numbers += [contribution.cosines.get(pair, math.nan) for pair in _pairs(rewards)]
    numbers += _filled(list(contribution.step_norms), steps)
    return numbers + _filled(list(contribution.step_norms.values()), steps)


def _pairs(rewards: Sequence[str]) -> list[str]:
    return [f"{a}/{b}" for a, b in combinations(rewards, 2)]


def _filled(values: Sequence[float | None], length: int) -> list[float]:
    return [math.nan if value is None else value for value in values] + [math.nan] * (length - len(values))


def _contribution(numbers: list[float], rewards: Sequence[str], samples: int) -> Contribution:
    """The inverse of `_row`."""
    (*counts, failed, looked), numbers = map(int, numbers[: len(_COUNTS) + 2]), numbers[len(_COUNTS) + 2 :]
    seconds, numbers = Seconds(*numbers[: len(_SECONDS)]), numbers[len(_SECONDS) :]
    told, numbers = numbers[: len(GROUP_NUMBERS)], numbers[len(GROUP_NUMBERS) :]
    mixed, numbers = numbers[:samples], numbers[samples:]
    scores: dict[str, Sequence[float | None]] = {
        reward: numbers[i * samples : (i + 1) * samples] for i, reward in enumerate(rewards)
    }
    numbers = numbers[len(rewards) * samples :]
    pulls = {reward: numbers[i * _PULL : (i + 1) * _PULL] for i, reward in enumerate(rewards)}
    numbers = numbers[len(rewards) * _PULL :]
    cosines = dict(zip(_pairs(rewards), numbers, strict=False))
    numbers = numbers[len(cosines) :]
    pairs = zip(numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :], strict=True)
    norms = {int(step): norm for step, norm in pairs if not math.isnan(step)}
    update, version, first_row, num_samples, num_skipped, num_splits = counts
    return Contribution(
        update,
        version,
        first_row,
        num_samples,
        num_skipped,
        scores,
        mixed[:num_samples],
        norms,
        seconds,
        groups={name: value for name, value in zip(GROUP_NUMBERS, told, strict=True) if not math.isnan(value)},
        pulls={reward: Pull(*told) for reward, told in pulls.items() if not math.isnan(told[0])},
        cosines={pair: cosine for pair, cosine in cosines.items() if not math.isnan(cosine)},
        failure="" if failed else None,
        num_splits=num_splits,
        held_out=HeldOutMeans(0, {}) if looked else None,
    )
