"""An evaluation is kept, and those of earlier versions are read."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sdo_ray.evaluation.result import first_with_pictures, read_evaluation, write_evaluation
from sdo_ray.evaluation.summary import as_records
from sdo_ray.storage import RunDirectory
from tests.support.evaluations import made_up

OLD = """{
  "name": "old",
  "models": {"base": "zoo://emoji", "candidate": "runs/x"},
  "set_metrics": {"seconds_per_image": {"base": 0.5, "candidate": 0.5}},
  "details": {
    "created": "2026-11-20T00:00:00+00:00",
    "comparisons": [
      {
        "metric": "quality", "category": null, "role": "candidate", "against": "base",
        "num_pairs": 2, "before": 0.5, "after": 2.0, "difference": 1.5, "low": 1.0, "high": 2.0, "win_rate": 1.0
      }
    ]
  }
}"""
"""What version 0.1.0 wrote beside `PICTURES`."""

PICTURES = {
    "index": [0, 1],
    "prompt": ["a", "b"],
    "category": ["x", None],
    "base.picture": [b"1", b"2"],
    "base.quality": [0.0, 1.0],
    "candidate.picture": [b"3", b"4"],
    "candidate.quality": [1.0, 3.0],
}


def test_an_earlier_version_s_evaluation_is_read_and_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/evaluation.json").write_text(OLD)
    pq.write_table(pa.table(PICTURES), tmp_path / "run/pictures.parquet", compression="zstd")
    run = RunDirectory(str(tmp_path), "run")
    evaluation = read_evaluation(run)
    assert evaluation is not None
    assert evaluation.metrics == ("quality",)
    # Its intervals were bootstrap percentiles, and it did not say how many prompts the pairs were of.
    (now,), (then,) = as_records(evaluation), evaluation.details["comparisons"]
    assert {key: value for key, value in now.items() if key not in ("low", "high", "num_clusters")} == {
        key: value for key, value in then.items() if key not in ("low", "high")
    }
    assert dict(evaluation.models) == {"base": "zoo://emoji", "candidate": "runs/x"}
    write_evaluation(run, evaluation)
    assert json.loads((tmp_path / "run/evaluation.json").read_text()) == json.loads(OLD)
    assert pq.read_table(tmp_path / "run/pictures.parquet").to_pydict() == PICTURES


def test_pictures_come_some_after_others(tmp_path: Path) -> None:
    """What is written is what would have been, with all of them in memory."""
    whole = made_up(list("abcde"), champion=True, quality=[1.0, 2.0, 3.0, 4.0, 5.0])
    names = [name for name in whole.images.column_names if name.endswith(".picture")]
    slim, pictures = replace(whole, images=whole.images.drop_columns(names)), whole.images.select(names)
    run = RunDirectory(str(tmp_path), "run")
    write_evaluation(run, slim, [pictures.slice(0, 2), pictures.slice(2)])
    read = read_evaluation(run)
    assert read is not None
    assert read.images.select(whole.images.column_names).equals(whole.images)
    without = read_evaluation(run, pictures=False)
    assert without is not None
    assert without.images.equals(slim.images)
    shown = first_with_pictures(slim, iter([pictures.slice(0, 2), pictures.slice(2)]), 3)
    assert shown.images["base.picture"].to_pylist()[:3] == pictures["base.picture"].to_pylist()[:3]
    assert shown.images["base.picture"].to_pylist()[3:] == [None, None]


def test_an_evaluation_without_its_numbers_is_not_complete(tmp_path: Path) -> None:
    run, evaluation = RunDirectory(str(tmp_path), "run"), made_up(list("abc"), quality=[1.0, 2.0, 3.0])
    write_evaluation(run, evaluation)
    read = read_evaluation(run)
    assert read is not None
    assert read.images.equals(evaluation.images)
    assert (read.name, read.models, read.set_metrics) == (evaluation.name, evaluation.models, evaluation.set_metrics)
    (tmp_path / "run/evaluation.json").unlink()
    assert read_evaluation(run) is None
