"""What is finished stays finished."""

from pathlib import Path

import pyarrow as pa
import pytest

from sdo_ray.evaluation.images import image_blocks
from sdo_ray.evaluation.parts import Parts
from sdo_ray.storage import RunDirectory

QUESTIONS = pa.table({"index": range(5), "prompt": list("abcde"), "category": pa.nulls(5, pa.string())})


@pytest.fixture(params=["directory", "uri"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(tmp_path) if request.param == "directory" else f"file://{tmp_path}", "run")


def done(block: pa.Table) -> pa.Table:
    return block.append_column("picture", [[b"png"] * len(block)])


def rows(blocks: list[pa.Table]) -> list[tuple[str, int, str]]:
    return [tuple(row.values()) for block in blocks for row in block.to_pylist()]


def test_at_first_everything_is_missing_one_model_after_the_other(run: RunDirectory) -> None:
    blocks = Parts(run).missing(["base", "candidate"], QUESTIONS, 2)
    assert [len(block) for block in blocks] == [2, 2, 1, 2, 2, 1]
    assert rows(blocks) == [(role, i, "abcde"[i]) for role in ("base", "candidate") for i in range(5)]
    assert Parts(run).read() == []


def test_what_is_there_is_not_missing(run: RunDirectory) -> None:
    parts = Parts(run)
    first, *_ = parts.missing(["base", "candidate"], QUESTIONS, 3)
    parts.add(done(first))
    # Another batch size, as after a change of machine, changes nothing about what is done.
    left = Parts(run).missing(["base", "candidate"], QUESTIONS, 2)
    assert rows(left) == [("base", 3, "d"), ("base", 4, "e"), *(("candidate", i, "abcde"[i]) for i in range(5))]
    for block in left:
        parts.add(done(block))
    assert parts.missing(["base", "candidate"], QUESTIONS, 2) == []
    table = pa.concat_tables(parts.read())
    assert sorted(zip(table["role"].to_pylist(), table["index"].to_pylist(), strict=True)) == [
        (role, i) for role in ("base", "candidate") for i in range(5)
    ]
    assert set(table["picture"].to_pylist()) == {b"png"}


def test_pictures_come_in_the_order_of_the_questions(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever blocks they were made."""
    monkeypatch.setattr("sdo_ray.evaluation.parts.AT_ONCE", 2)
    parts, roles = Parts(run), ["base", "candidate"]
    for size, count in ((3, 1), (2, None)):
        for block in parts.missing(roles, QUESTIONS, size)[:count]:
            names = zip(block["role"].to_pylist(), block["index"].to_pylist(), strict=True)
            parts.add(block.append_column("picture", [[f"{role} {index}".encode() for role, index in names]]))
    tables = list(parts.pictures(roles, QUESTIONS))
    assert [len(table) for table in tables] == [2, 2, 1]
    assert pa.concat_tables(tables).to_pydict() == {
        f"{role}.picture": [f"{role} {index}".encode() for index in range(5)] for role in roles
    }
    assert all("picture" not in table.column_names for table in parts.scores())


def test_a_file_that_was_not_finished_does_not_count(run: RunDirectory, tmp_path: Path) -> None:
    parts = Parts(run)
    (block,) = image_blocks(["base"], QUESTIONS.slice(0, 1), 8)
    parts.add(done(block))
    (tmp_path / "run/parts/base-00000001.parquet.part").write_bytes(b"half")
    assert len(parts.read()) == 1


def test_they_go_when_they_are_no_longer_needed(run: RunDirectory, tmp_path: Path) -> None:
    parts = Parts(run)
    (block,) = image_blocks(["base"], QUESTIONS.slice(0, 1), 8)
    parts.add(done(block))
    parts.remove()
    assert list((tmp_path / "run").iterdir()) == []
