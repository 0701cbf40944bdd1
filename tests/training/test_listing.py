"""Ray Train's list of a run's checkpoints, cut in every way, is made again from those that are whole."""

import json
from pathlib import Path

import pytest
from ray.train import CheckpointConfig
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager
from ray.train.v2._internal.execution.storage import StorageContext

from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.training.checkpoints import POLICY, PROGRESS, SCORE
from sdo_ray.training.listing import LIST, TRAIN, kept, known, mend
from sdo_ray.training.manifest import MANIFEST, files_in, write_manifest

CUT = ["", '{"ray_ver', "[]", '{"ray_version": "2.60.0", "checkpoint_results": 3}']


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """With checkpoints after 2, 4, 6 and 8 updates, of which the second is the best."""
    for update, score in ((2, None), (4, 5.0), (6, -1.0), (8, 1.0)):
        (place := tmp_path / f"run/{TRAIN}/checkpoint_{update}").mkdir(parents=True)
        (place / POLICY).write_bytes(bytes(update))
        (place / PROGRESS).write_text(json.dumps({"update": update, SCORE: score, "manifest": True}))
        write_manifest(place, files_in(place))
    return RunDirectory(str(tmp_path), "run")


def place(run: RunDirectory, update: int) -> Path:
    return Path(run.place(f"{TRAIN}/checkpoint_{update}"))


def manager(run: RunDirectory) -> CheckpointManager:
    """Ray Train's own, as a run that goes on makes it."""
    storage = StorageContext(storage_path=run.path, experiment_dir_name=TRAIN, read_only=True)
    config = CheckpointConfig(num_to_keep=1, checkpoint_score_attribute=SCORE, checkpoint_score_order="max")
    return CheckpointManager(config, storage)


def test_a_run_that_has_saved_nothing_has_none(tmp_path: Path) -> None:
    nothing = RunDirectory(str(tmp_path), "run")
    mend(nothing)
    assert kept(nothing) == {}
    assert not nothing.has(LIST)


@pytest.mark.parametrize("damaged", CUT)
def test_a_list_that_was_cut_is_made_again(run: RunDirectory, damaged: str, capsys: pytest.CaptureFixture[str]) -> None:
    run.write(LIST, damaged.encode())
    assert list(kept(run)) == [2, 4, 6, 8]  # whoever only looks writes nothing
    assert run.read(LIST) == damaged.encode()
    mend(run)
    assert "made again: those of update 2, 4, 6, 8 are whole" in capsys.readouterr().out
    made = run.read(LIST)
    mend(run)
    assert run.read(LIST) == made
    ray_train = manager(run)
    assert [each.metrics["update"] for each in ray_train._checkpoint_results] == [2, 6, 8, 4]
    assert ray_train.latest_checkpoint_result.metrics == {"update": 8, SCORE: 1.0}
    assert Path(ray_train.latest_checkpoint_result.checkpoint.path) == place(run, 8)


def test_what_is_not_whole_is_not_on_it(run: RunDirectory) -> None:
    (place(run, 8) / MANIFEST).unlink()
    (place(run, 6) / POLICY).write_bytes(b"")
    (place(run, 4) / PROGRESS).write_text('{"upd')
    run.write(LIST, b"")
    mend(run)
    assert [update for update, _ in known(run)] == [2]
    for file in place(run, 2).iterdir():
        file.unlink()
    run.write(LIST, b"")
    mend(run)
    assert known(run) == []


def test_a_list_that_names_what_is_gone_is_made_again(run: RunDirectory) -> None:
    run.write(LIST, b"")
    mend(run)
    place(run, 8).rename(place(run, 8).parent / "away")
    mend(run)
    assert list(kept(run)) == [2, 4, 6]


def test_checkpoints_that_cannot_be_judged_are_left_to_the_user(run: RunDirectory) -> None:
    """An earlier version wrote no manifests."""
    (place(run, 8) / MANIFEST).unlink()
    (place(run, 8) / PROGRESS).write_text('{"update": 8, "reports": []}')
    for damaged in CUT:
        run.write(LIST, damaged.encode())
        for read in (kept, mend):
            with pytest.raises(SettingsError, match=r"^run\.storage: .*snapshot\.json, the list of checkpoints, is"):
                read(run)
