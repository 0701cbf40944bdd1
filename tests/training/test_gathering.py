"""What workers tell one another of an update, in a group of one; several are in `test_engine`."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed

from rewards.pulls import Pull
from sdo_ray.rollout.looks import HeldOutMeans
from sdo_ray.rollout.records import Contribution, Seconds
from sdo_ray.training.gathering import check_rows, gather_numbers
from tests.support.contributions import contribution

CPU = torch.device("cpu")


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_numbers_come_as_they_are_in_the_order_of_rows(group_of_one: None) -> None:
    skipped = Contribution(
        7, 5, 4, 0, 2, {"b": [None, -1e300]}, [], {}, Seconds(0.1, 0.2, 0.3), failure="lost", num_splits=3
    )
    skipped = replace(skipped, held_out=HeldOutMeans(5, {"c": 0.25}))
    whole = Contribution(
        7,
        6,
        2,
        1,
        1,
        {"a": [0.1, math.inf], "b": [1.0, 2.0]},
        [1 / 3],
        {0: 1.5, 49: 1e-30},
        Seconds(1, 2, 3),
        groups={"spread": 0.5},
    )
    whole = replace(whole, pulls={"b": Pull(1.0, 2.0, 4.0, 1.0, 1 / 7)}, cosines={"a/b": -1 / 3})
    first, second = gather_numbers([skipped, whole], ["a", "b"], 2, CPU)
    assert first == replace(whole, gradient=first.gradient)
    # What a batch has no score of is not a number.
    assert [math.isnan(score) for score in second.scores["a"]] == [True, True]
    assert math.isnan(second.scores["b"][0])
    assert second.scores["b"][1] == -1e300
    assert (second.failure, second.num_splits, second.held_out) == ("lost", 3, HeldOutMeans(5, {"c": 0.25}))
    assert second.pulls == second.cosines == {}
    assert (second.num_skipped, second.step_norms, second.seconds) == (2, {}, skipped.seconds)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([8, 10, 12, 14], None),
        ([14, 8, 12, 10], None),
        ([8, 10, 14], "missing: 12$"),
        ([8, 10, 10, 14], "missing: 12; there more than once: 10$"),
        ([8, 10, 12, 16], "missing: 14; of another update: 16$"),
        ([8, 9, 12, 14], "missing: 10; of another update: 9$"),
    ],
)
def test_an_update_is_of_its_rows_each_once(rows: Sequence[int], complaint: str | None) -> None:
    arrived = [replace(contribution(1, 0), first_row=row) for row in rows]
    if complaint is None:
        check_rows(arrived, 1, count=4, rows=2)
    else:
        with pytest.raises(RuntimeError, match=f"update 1 did not get its 4 sampler batches.* {complaint}"):
            check_rows(arrived, 1, count=4, rows=2)


def test_a_long_list_of_rows_is_cut() -> None:
    with pytest.raises(RuntimeError, match=r"missing: 0, 1, 2, 3, 4 and 95 more$"):
        check_rows([], 0, count=100, rows=1)
