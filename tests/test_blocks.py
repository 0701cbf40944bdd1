"""Blocks through a pool of actors: each whole, by one actor, on GPUs too."""

from types import SimpleNamespace

import psutil
import pyarrow as pa
import pytest
import ray

from sdo_ray.blocks import map_blocks, packed, unpacked


class Sizes:
    """Says how many rows a call was given, and what its process is called, and adds."""

    def __init__(self, add: int) -> None:
        self._add = add

    def __call__(self, block: pa.Table) -> pa.Table:
        added = [x + self._add for x in block["x"].to_pylist()]
        title = psutil.Process().cmdline()[0].split(".")[0]
        return pa.table({"x": added, "rows": [block.num_rows] * len(block), "title": [title] * len(block)})


@pytest.mark.parametrize("num_gpus", [0.0, 0.5])
def test_each_block_is_one_call(num_gpus: float) -> None:
    blocks = [pa.table({"x": [0, 1]}), pa.table({"x": [2]}), pa.table({"x": [3, 4, 5]}), pa.table({"x": [6]})]
    # Whole CPUs are for others: no task of Ray Data's own may need one.
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        others = ray.remote(Sizes).options(num_cpus=1).remote(0)
        ray.get(others.__ray_ready__.remote())
        ray.get((more := ray.remote(Sizes).options(num_cpus=0.2).remote(0)).__ray_ready__.remote())
        made = map_blocks(
            blocks, Sizes, {"add": 10}, count=2, resources=SimpleNamespace(num_cpus=0.3, num_gpus=num_gpus)
        )
        rows = pa.concat_tables(made).sort_by("x")
        del others, more
    finally:
        ray.shutdown()
    assert rows["x"].to_pylist() == [10, 11, 12, 13, 14, 15, 16]
    assert rows["rows"].to_pylist() == [2, 2, 1, 3, 3, 3, 1]
    assert set(rows["title"].to_pylist()) == {"ray::MapWorker(MapBatches(Sizes))"}


def test_a_packed_block_keeps_its_types() -> None:
    block = pa.table({"a": pa.array([1, None], pa.int16()), "b": pa.array([["x"], []], pa.list_(pa.string()))})
    row = packed(block)
    assert row.num_rows == 1
    assert unpacked(row).equals(block)
