"""What a cycle remembers, and who may work on it."""

from pathlib import Path

import pytest

from sdo_ray.cycle.record import CycleRecord, Summary, read_summary, write_summary
from sdo_ray.storage import RunDirectory


def test_stages_are_kept_as_they_change(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path), "cycle")
    with CycleRecord(run).stage("align") as stage:
        assert CycleRecord(run).stages["align"].status == "running"
        stage.facts["candidate"] = "models:/m/3"
    again = CycleRecord(run)
    assert (again.stages["align"].status, again.stages["align"].facts) == ("done", {"candidate": "models:/m/3"})
    assert again.stages["align"].seconds > 0


def test_a_failed_stage_keeps_its_facts_and_its_time(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path), "cycle")

    def fail() -> None:
        with CycleRecord(run).stage("evaluate-1") as stage:
            stage.facts["champion"] = None
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    failed = CycleRecord(run).stages["evaluate-1"]
    assert (failed.status, failed.facts) == ("failed", {"champion": None})
    before = failed.seconds
    with CycleRecord(run).stage("evaluate-1") as stage:
        assert stage.facts == {"champion": None}
    assert CycleRecord(run).stages["evaluate-1"].seconds > before


def test_summary_comes_back(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path), "cycle")
    assert read_summary(run) is None
    summary = Summary(
        "c", "refused", "worse", "models:/m/2", "models:/m/1", 3, "abc", [{"name": "align", "seconds": 1.0}]
    )
    write_summary(run, summary)
    assert read_summary(run) == summary
