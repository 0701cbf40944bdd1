"""The start of a trainer: the samplers start at once, while this process imports what it trains with.

Nothing here needs torch.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypedDict

import pyarrow as pa
import ray.train
from ray.data.exceptions import UserCodeException

from sdo_ray.sealed import Sealed
from sdo_ray.training.channel import Channel

ROLLOUTS = "rollouts"
"""The name of the stream of contributions."""

Arrived = queue.Queue[pa.Table | BaseException | None]
"""Contributions, as rows of `Contribution.to_arrow`; what the stream raised, and None at its end."""


class Work(TypedDict):
    """What Ray Train gives the train function."""

    channel: Channel
    train: Sealed[Callable[[Arrived], None]]


def start_training(work: Work) -> None:
    """The train function."""
    arrived = arriving(work["channel"])
    work["train"].open()(arrived)


def arriving(channel: Channel) -> Arrived:
    """This worker's contributions, read by a thread; a model or reward that raises gives the run up by `channel`."""
    shard = ray.train.get_dataset_shard(ROLLOUTS)
    arrived: Arrived = queue.Queue(maxsize=2)

    def read() -> None:
        try:
            # No prefetching: with policy lag 0 the next block cannot exist before this one is used.
            for table in shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in range(table.num_rows):
                    arrived.put(table.slice(row, 1))
            arrived.put(None)
        except UserCodeException as error:
            # A reward or a model that raises does so again: the run is given up, and not tried again as after a crash.
            channel.give_up(str(error))
            arrived.put(error)
        except BaseException as error:
            arrived.put(error)

    threading.Thread(target=read, name="contributions", daemon=True).start()
    return arrived
