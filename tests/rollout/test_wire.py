"""Records as bytes."""

import pyarrow as pa
import pytest
import torch

from sdo_ray.rollout.gradient import Gradient
from sdo_ray.rollout.records import Contribution
from sdo_ray.rollout.wire import ALIGNED, pack, unpack
from tests.support.contributions import contribution


def test_header_and_parts_come_back() -> None:
    header = {"a": [1, None, "\u00e9"], "b": float("nan")}
    parts = {"x": torch.randn(5), "empty": torch.empty(0), "y": torch.arange(3, dtype=torch.int64)}
    [(got, raw)] = unpack(pack(header, parts))
    assert got["a"] == header["a"]
    assert got["b"] != got["b"]
    assert {name: part.dtype for name, part in raw.items()} == dict.fromkeys(parts, torch.uint8)
    for name, part in parts.items():
        assert torch.equal(raw[name].view(part.dtype), part)


def test_reading_copies_nothing() -> None:
    array = pack({}, {"x": torch.randn(1000), "y": torch.randn(10)})
    data = array.buffers()[2]
    [(_, parts)] = unpack(array)
    for part in parts.values():
        assert data.address <= part.data_ptr() < data.address + data.size
        assert (part.data_ptr() - data.address) % ALIGNED == 0


def test_a_gradient_is_one_vector_in_the_order_of_names() -> None:
    b, a = torch.randn(3, 2, dtype=torch.float64), torch.randn(4, requires_grad=True)
    gradient = Gradient.of({"b": b, "a": a})
    assert list(gradient) == ["a", "b"]
    assert torch.equal(gradient.vector, torch.cat([a.detach(), b.float().flatten()]))
    gradient["b"].zero_()
    assert (gradient.vector[4:] == 0).all()
    assert not Gradient.none()


@pytest.mark.parametrize(("dtype", "size", "error"), [("float32", 4, 0.0), ("bfloat16", 2, 2**-8)])
def test_a_gradient_travels_in_whole_or_half_precision(dtype: str, size: int, error: float) -> None:
    sent = contribution(0, 0)
    [got] = Contribution.from_arrow(sent.to_arrow(dtype))
    assert got.gradient.vector.nbytes == size * sent.gradient.vector.numel()
    difference = got.gradient.vector.float() - sent.gradient.vector
    assert (difference.abs() <= error * sent.gradient.vector.abs()).all()
    assert got.gradient.shapes == sent.gradient.shapes


def test_many_in_a_table() -> None:
    table = pa.concat_tables([contribution(0, part).to_arrow() for part in range(4)])
    for cut in (table, table.combine_chunks()):
        got = Contribution.from_arrow(cut.slice(1, 2))
        assert [each.first_row for each in got] == [2, 4]
        assert torch.equal(got[1].gradient.vector, contribution(0, 2).gradient.vector)
