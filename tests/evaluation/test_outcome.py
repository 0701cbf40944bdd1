"""What a finished alignment run leaves is an evaluation of two models, in files that keep their shape."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sdo_ray.evaluation.outcome import (
    FILE,
    IMAGES,
    SHEET,
    Outcome,
    as_metrics,
    read_outcome,
    write_images,
    write_outcome,
)
from sdo_ray.evaluation.result import Evaluation
from sdo_ray.evaluation.summary import summarize
from sdo_ray.storage import RunDirectory
from tests.support.evaluations import image

BASE = [0.034, 1.36, 1.225, -0.51, -0.298, -0.527, 0.57]
ALIGNED = [0.406, 2.133, 0.701, 0.673, 0.054, 0.213, 0.902]

OLD = """{
  "comparisons": [
    {
      "judge": "a",
      "num_pairs": 7,
      "base": 0.2648571428571428,
      "aligned": 0.726,
      "difference": 0.46114285714285713,
      "low": 0.09112499999999997,
      "high": 0.8158571428571427,
      "win_rate": 0.8571428571428571
    },
    {
      "judge": "m:B",
      "num_pairs": 7,
      "base": 3.0,
      "aligned": 3.4285714285714284,
      "difference": 0.42857142857142855,
      "low": -2.142857142857143,
      "high": 3.0,
      "win_rate": 0.5
    }
  ],
  "places": {
    "before/after sheet": "runs/x/before_after.png",
    "MLflow": "mlflow ui"
  }
}"""
"""The file that version 0.1.0 wrote of `comparison()`."""

PLACES = {"before/after sheet": "runs/x/before_after.png", "MLflow": "mlflow ui"}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(tmp_path), "run")


def comparison(base: list[float] = BASE, aligned: list[float] = ALIGNED) -> Evaluation:
    count = len(base)
    numbers = [float(i) for i in range(count)]
    columns = {
        "index": pa.array(range(count), pa.int64()),
        # Names in no order: the prompts are clusters of one pair each, whatever they are called.
        "prompt": [f"prompt {(3 * i) % count}" for i in range(count)],
        "category": pa.nulls(count, pa.string()),
        "base.picture": [image("red")] * count,
        "base.a": base,
        "base.m:B": numbers,
        "candidate.picture": [image("blue")] * count,
        "candidate.a": aligned,
        "candidate.m:B": [x + (-1) ** i * x for i, x in enumerate(numbers)],
    }
    return Evaluation("run", {"base": "zoo://emoji", "candidate": "runs/x"}, pa.table(columns))


def outcome(evaluation: Evaluation | None = None) -> Outcome:
    return Outcome(tuple(summarize(evaluation or comparison())), PLACES)


def test_the_file_is_that_of_version_0_1_0_with_other_intervals(run: RunDirectory) -> None:
    write_outcome(run, outcome())
    kept, old = (
        json.loads(text.replace('"judge"', '"evaluator"')) for text in (Path(run.place(FILE)).read_text(), OLD)
    )
    for row in (*kept["comparisons"], *old["comparisons"]):
        del row["low"], row["high"]
    assert kept["comparisons"] == [row | {"num_prompts": 7} for row in old["comparisons"]]
    assert kept["places"] == old["places"]
    assert read_outcome(run) == outcome()


@pytest.mark.parametrize("word", ["judge", "evaluator"])
def test_an_earlier_version_s_file_is_read(run: RunDirectory, word: str) -> None:
    assert read_outcome(run) is None
    run.write(FILE, OLD.replace('"judge"', f'"{word}"').encode())
    read = read_outcome(run)
    assert read is not None
    pair = read.lines[0].pairs["candidate", "base"]
    assert (read.lines[0].metric, pair.low, pair.high) == ("a", 0.09112499999999997, 0.8158571428571427)
    assert (pair.num_pairs, pair.num_clusters, read.places) == (7, 7, PLACES)


def test_it_is_readable(run: RunDirectory) -> None:
    head, a, mixed, _, sheet, server = str(outcome()).splitlines()
    assert head.split()[:3] == ["metric", "base", "candidate"]
    assert a.split() == ["a", "0.265", "0.726", "+0.461", "[-0.302,", "+0.954]", "86%"]
    assert mixed.split() == ["m:B", "3.000", "3.429", "+0.429", "[-3.148,", "+4.101]", "50%"]
    assert (sheet.split()[-1], server.split()[-2:]) == ("runs/x/before_after.png", ["mlflow", "ui"])


def test_the_table_of_images_and_the_sheet(tmp_path: Path) -> None:
    sheet, file = write_images(tmp_path, comparison())
    assert (sheet.name, file.name) == (SHEET, IMAGES) == ("before_after.png", "heldout.parquet")
    table = pq.read_table(file)
    assert table.column_names == [
        *("index", "prompt", "base", "base.a", "base.m:B"),
        *("aligned", "aligned.a", "aligned.m:B"),
    ]
    assert table["aligned"].to_pylist() == [image("blue")] * 7
    assert (table["base.a"].to_pylist(), table["aligned.a"].to_pylist()) == (BASE, ALIGNED)
    drawn = Image.open(sheet).convert("RGB")
    assert drawn.getpixel((64 + 64, 64)) == (255, 0, 0)
    assert drawn.getpixel((64 + 64, 128 + 64)) == (0, 0, 255)


def test_numbers_for_mlflow() -> None:
    assert as_metrics(outcome().lines) == {
        "heldout/a/base": 0.2648571428571428,
        "heldout/a/aligned": 0.726,
        "heldout/a/low": pytest.approx(-0.302, abs=1e-3),
        "heldout/a/high": pytest.approx(0.954, abs=1e-3),
        "heldout/m:B/base": 3.0,
        "heldout/m:B/aligned": 3.4285714285714284,
        "heldout/m:B/low": pytest.approx(-3.148, abs=1e-3),
        "heldout/m:B/high": pytest.approx(4.101, abs=1e-3),
    }


def test_an_evaluator_that_failed_almost_everywhere_ends_no_run(run: RunDirectory) -> None:
    """All updates are done by then: what is known is kept, the rest is not made up."""
    nothing = comparison([math.nan] * 6 + [1.0], [math.nan] * 7)
    write_outcome(run, outcome(nothing))
    first, second = run.read_json(FILE)["comparisons"]
    assert first == {"evaluator": "a", "base": 1.0, "aligned": None}
    assert second["num_pairs"] == 7
    read = read_outcome(run)
    assert str(read) == str(outcome(nothing))
    assert read is not None
    assert read.lines[0].pairs == {}
    assert set(as_metrics(read.lines)) == {
        "heldout/a/base",
        *(f"heldout/m:B/{p}" for p in ("base", "aligned", "low", "high")),
    }


def test_means_are_over_the_pairs(run: RunDirectory) -> None:
    """So that a row of the table adds up, and says the same when it is shown again."""
    some = comparison([math.nan, *BASE[1:]])
    write_outcome(run, outcome(some))
    assert str(read_outcome(run)) == str(outcome(some))
    row = run.read_json(FILE)["comparisons"][0]
    assert row["num_pairs"] == 6
    assert row["aligned"] - row["base"] == pytest.approx(row["difference"])
