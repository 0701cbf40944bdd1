"""Records survive the way through Arrow."""

import math

import pyarrow as pa
import pytest
import torch

from sdo_ray.rollout.gradient import Gradient
from sdo_ray.rollout.records import Contribution, Seconds
from sdo_ray.rollout.tensors import dump_tensors, load_tensors


@pytest.mark.parametrize("preview", [None, b"\x89PNG\0"])
def test_a_contribution_comes_back_as_it_left(preview: bytes | None) -> None:
    sent = Contribution(
        update=3,
        policy_version=2,
        first_row=96,
        num_samples=2,
        num_skipped=1,
        scores={"a": [1.0, -0.1, math.nan], "m:B": [math.inf, 1e-30, 2.0]},
        mixed=[0.3, 0.1 + 0.2],
        step_norms={0: 1.5, 19: 0.0},
        seconds=Seconds(1.0, 2.0, 3.0),
        gradient=Gradient.of({"unet.b": torch.randn(3, 2), "unet.a": torch.zeros(1)}),
        preview=preview,
    )
    table = sent.to_arrow()
    assert table.num_rows == 1
    before, got = Contribution.from_arrow(pa.concat_tables([table, table]).combine_chunks())
    assert torch.equal(before.gradient.vector, got.gradient.vector)
    for name, value in vars(sent).items():
        if name not in ("gradient", "scores"):
            assert getattr(got, name) == value, name
    assert got.scores["a"][:2] == [1.0, -0.1]
    assert math.isnan(got.scores["a"][2])
    assert got.scores["m:B"] == [math.inf, 1e-30, 2.0]
    assert got.gradient.keys() == sent.gradient.keys()
    for name, tensor in sent.gradient.items():
        assert torch.equal(got.gradient[name], tensor)


def test_tensors_keep_type_shape_and_bits() -> None:
    sent = {
        "half": torch.randn(2, 3).to(torch.bfloat16),
        "a view": torch.randn(4, 4).t(),
        "learned": torch.nn.Parameter(torch.randn(2)),
        "none": torch.zeros(0, 3),
    }
    got = load_tensors(dump_tensors(sent))
    assert got.keys() == sent.keys()
    for name, tensor in sent.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor)
        assert not got[name].requires_grad
