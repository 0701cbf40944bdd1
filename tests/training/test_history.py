"""The reports of a run's updates, in files of their own."""

from pathlib import Path

from sdo_ray.storage import RunDirectory
from sdo_ray.training.history import DIRECTORY, forget_reports, read_reports, write_reports
from tests.support.updates import report


def test_reports_are_read_up_to_where_the_run_is(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path), "run")
    forget_reports(run, 0)  # nothing is there yet
    assert read_reports(run, 5) == []
    reports = [report(update) for update in range(7)]
    write_reports(run, reports[:4])
    write_reports(run, [])
    write_reports(run, reports[4:])
    assert len(list((tmp_path / "run" / DIRECTORY).iterdir())) == 2
    assert read_reports(run, 7) == reports
    assert read_reports(run, 5) == reports[:5]  # a checkpoint of update 7 was damaged, say, and one of 5 is taken


def test_updates_made_again_take_the_place_of_what_was_reported(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path), "run")
    write_reports(run, [report(0), report(1)])
    write_reports(run, [report(2), report(3)])
    forget_reports(run, 2)
    assert read_reports(run, 4) == [report(0), report(1)]
    write_reports(run, [report(2)])
    assert [found.update for found in read_reports(run, 4)] == [0, 1, 2]
