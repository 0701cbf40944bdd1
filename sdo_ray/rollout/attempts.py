"""A sampler batch that fails is tried again, in halves where memory was short, and in the end skipped. No Ray in here.

A mistake that would happen again ends the run at once: a reward that does not do what a reward has to, one that is
given up, and whatever fails before a sampler has made its first contribution.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain

import torch
from ray.exceptions import RayError

from rewards.pulls import added
from rewards.scoring import RewardMistake
from sdo_ray.cluster import cause_of
from sdo_ray.rollout.gradient import Gradient
from sdo_ray.rollout.numbers import means
from sdo_ray.rollout.records import Contribution, PromptBatch, Seconds
from sdo_ray.rollout.replica import RewardFailed
from sdo_ray.rollout.watch import BatchFailed, Disagreement
from sdo_ray.secrets import redact

PAUSES = (1.0, 5.0)
"""Seconds before each further try."""

SHORT_OF_MEMORY = ("out of memory", "can't allocate memory")
"""How CUDA, and torch on CPUs, say so."""


class Attempts:
    """Makes contributions of batches, come what may.

    Args:
        make: a batch -> its contribution.
        policy_version: the version that samples, for a contribution that is skipped.
        say: tells people what failed, and what is done about it.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        make: Callable[[PromptBatch], Contribution],
        policy_version: Callable[[], int],
        say: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._make = make
        self._policy_version = policy_version
        self._say = say
        self._pause = pause
        self._any = False

    def __call__(self, batch: PromptBatch) -> Contribution:
        """A batch's contribution; skipped, with the cause in `failure`, after all tries failed.

        Raises:
            BatchFailed: trying other batches would be no use either.
        """
        for pause in (*PAUSES, None):
            try:
                contribution = self._make(batch)
            except Exception as error:
                final, short_of_memory, cause = _is_final(error), _is_for_memory(error), one_line(error)
                was_tried = isinstance(error, RewardFailed)
            else:
                self._any = True
                return contribution
            # Out here the error is gone, and with it what its traceback held in memory.
            if final:
                raise BatchFailed(f"{batch}: {cause}")
            if short_of_memory:
                torch.cuda.empty_cache()
                if len(batch.rows) > 1:
                    self._say(f"{batch}: {cause}; it is made in halves")
                    halves = merged([self(half) for half in batch.parts((len(batch.rows) + 1) // 2)])
                    return replace(halves, num_splits=halves.num_splits + 1)
            if pause is None or was_tried:
                break
            self._say(f"{batch}: {cause}; it is tried again in {pause:g} s")
            self._pause(pause)
        if not self._any:
            raise BatchFailed(f"{batch}: {cause}")
        self._say(f"{batch}: {cause}; it is skipped")
        return _skipped(batch, self._policy_version(), cause)


def merged(parts: Sequence[Contribution]) -> Contribution:
    """One contribution of those of several parts of a batch."""
    steps = sorted({step for part in parts for step in part.step_norms})
    names = dict.fromkeys(name for part in parts for name in part.gradient)
    keys = dict.fromkeys(key for part in parts for key in part.scores)
    scores = {key: [part.scores.get(key, [None] * part.num_rows) for part in parts] for key in keys}
    gradients = {name: [part.gradient[name] for part in parts if name in part.gradient] for name in names}
    return replace(
        parts[0],
        policy_version=min(part.policy_version for part in parts),
        num_samples=sum(part.num_samples for part in parts),
        num_skipped=sum(part.num_skipped for part in parts),
        scores={key: list(chain.from_iterable(values)) for key, values in scores.items()},
        mixed=list(chain.from_iterable(part.mixed for part in parts)),
        step_norms={step: math.hypot(*(part.step_norms.get(step, 0.0) for part in parts)) for step in steps},
        seconds=Seconds(
            *(sum(getattr(part.seconds, name) for part in parts) for name in ("sampling", "rewarding", "backward"))
        ),
        gradient=Gradient.of({name: torch.stack(values).sum(0) for name, values in gradients.items()}),
        groups=means(part.groups for part in parts),
        pulls=added(part.pulls for part in parts),
        cosines=means(part.cosines for part in parts),
        calls=tuple(chain.from_iterable(part.calls for part in parts)),
        num_splits=sum(part.num_splits for part in parts),
        failure=next((part.failure for part in parts if part.failure), None),
    )


def one_line(error: Exception) -> str:
    """What was raised, here or by a reward, in one line."""
    if isinstance(error, RewardFailed):
        return error.line
    if isinstance(error, RayError):
        return cause_of(error)
    return redact(f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": "))


def _skipped(batch: PromptBatch, policy_version: int, cause: str) -> Contribution:
    return Contribution(
        update=batch.update,
        policy_version=policy_version,
        first_row=batch.rows[0],
        num_samples=0,
        num_skipped=len(batch.rows),
        scores={},
        mixed=[],
        step_norms={},
        seconds=Seconds(0.0, 0.0, 0.0),
        gradient=Gradient.none(),
        failure=cause,
    )


def _is_final(error: Exception) -> bool:
    return isinstance(error, RewardMistake | Disagreement) or (isinstance(error, RewardFailed) and not error.prompts)


def _is_for_memory(error: Exception) -> bool:
    # An error of a reward comes with its traceback as text, and torch's own on CPUs is a RuntimeError.
    said = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in said for words in SHORT_OF_MEMORY)
