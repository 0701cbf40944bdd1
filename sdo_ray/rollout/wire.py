"""A record as bytes: one header, then its parts as they lie in memory.

    8 bytes   length of the header, little-endian
    header    JSON: what the caller says, and of each part its name, start and length
    parts     each at a multiple of `ALIGNED`

Writing copies every part once, from whatever device it is on; reading copies none.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import torch

ALIGNED = 64
"""Bytes; vector instructions, and views as wider types, want it."""


def pack(header: Mapping[str, Any], parts: Mapping[str, torch.Tensor]) -> pa.Array:
    """Write a record.

    Args:
        header: whatever JSON takes.
        parts: vectors of any type, on any device.

    Returns:
        An array of one large_binary.
    """
    table, end = {}, 0
    for name, part in parts.items():
        table[name] = [end, part.nbytes]
        end = _up(end + part.nbytes)
    text = json.dumps([header, table]).encode()
    start = _up(8 + len(text))
    record = torch.empty(start + end, dtype=torch.uint8)
    record[:start] = torch.frombuffer(
        bytearray(len(text).to_bytes(8, "little") + text.ljust(start - 8)), dtype=torch.uint8
    )
    for name, part in parts.items():
        first, length = table[name]
        record[start + first : start + first + length].view(part.dtype).copy_(part.detach())
    offsets = pa.array([0, len(record)], pa.int64()).buffers()[1]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(record.numpy())])


Record = tuple[dict[str, Any], dict[str, torch.Tensor]]
"""The header and the parts, as bytes: uint8 vectors that share the record's memory and must not be written to."""


def unpack(records: pa.LargeBinaryArray) -> list[Record]:
    """Read records."""
    _, ends, data = records.buffers()
    bounds = pa.Array.from_buffers(pa.int64(), len(records) + 1, [None, ends], offset=records.offset).to_pylist()
    # Not by scalars, which are copies.
    return [_read(data.slice(start, end - start)) for start, end in itertools.pairwise(bounds)]


def _read(record: pa.Buffer) -> Record:
    length = int.from_bytes(record[:8], "little")
    header, table = json.loads(record[8 : 8 + length].to_pybytes())
    start = _up(8 + length)
    parts = {}
    for name, (first, size) in table.items():
        # Through DLPack, because torch warns of memory that it may not write to and takes it all the same.
        whole = pa.Array.from_buffers(pa.uint8(), size, [None, record.slice(start + first, size)])
        parts[name] = torch.from_dlpack(whole)
    return header, parts


def _up(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
