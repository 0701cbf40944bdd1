"""Blocks of rows through a pool of actors on Ray Data, each block whole and by one actor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import pyarrow as pa
import ray
import ray.data

from sdo_ray.sealed import Sealed

BLOCK = "block"


class Resources(Protocol):
    """What each actor of a pool takes."""

    @property
    def num_cpus(self) -> float:
        """CPU cores."""

    @property
    def num_gpus(self) -> float:
        """GPUs."""


def map_blocks(
    blocks: Sequence[pa.Table],
    actor: Callable[..., Callable[[pa.Table], pa.Table]],
    arguments: Mapping[str, Any],
    *,
    count: int,
    resources: Resources,
) -> Iterator[pa.Table]:
    """What `actor(**arguments)` makes of each block, as it is done, in any order.

    Args:
        blocks: at least one.
        actor: the class of the actors, each of which is called with a block and returns one.
        arguments: its keyword arguments.
        count: actors at most; never more than blocks.
        resources: of each actor.
    """
    # Not `from_arrow`, which looks at each block in a task that takes a CPU, of which none need be free.
    dataset = ray.data.from_blocks([packed(block) for block in blocks]).map_batches(
        _named_as(actor),
        fn_constructor_kwargs={"actor": Sealed.of(partial(actor, **arguments))},
        compute=ray.data.ActorPoolStrategy(size=min(count, len(blocks)), max_tasks_in_flight_per_actor=1),
        batch_size=1,  # a block is a row, so it is neither cut nor joined; with GPUs Ray Data refuses None
        batch_format="pyarrow",
        num_cpus=resources.num_cpus,
        num_gpus=resources.num_gpus,
    )
    # In a task, so that what Ray Data says of its actors goes to Ray's log files and not to the driver's screen.
    task = ray.remote(num_cpus=0, num_returns="streaming", max_retries=0)(_read)
    for block in task.remote(dataset, ray.data.DataContext.get_current()):
        yield ray.get(block)


def packed(block: pa.Table) -> pa.Table:
    """A table as a table of one row."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, block.schema) as writer:
        writer.write_table(block)
    return pa.table({BLOCK: pa.array([sink.getvalue().to_pybytes()], pa.large_binary())})


def unpacked(row: pa.Table) -> pa.Table:
    """The table that `packed` made into one row."""
    [block] = row[BLOCK]
    return pa.ipc.open_stream(block.as_buffer()).read_all()


class _OnBlocks:
    def __init__(self, actor: Sealed[Callable[[], Callable[[pa.Table], pa.Table]]]) -> None:
        self._refused: ValueError | None = None
        try:
            self._actor = actor.open()()
        except ValueError as error:
            self._refused = error  # and raised by a call: an actor that cannot start is started again and again

    def __call__(self, row: pa.Table) -> pa.Table:
        if self._refused is not None:
            raise self._refused
        return self._actor(unpacked(row))


def _named_as(actor: Any) -> type[_OnBlocks]:
    """Of which Ray shows the name."""
    return type(actor.__name__, (_OnBlocks,), {})


def _read(dataset: ray.data.Dataset, context: ray.data.DataContext) -> Iterator[pa.Table]:
    ray.data.DataContext._set_current(context)
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
