"""What a checkpoint has for those who have no engine."""

import json
from pathlib import Path

import pytest
import ray.train
import safetensors.torch
import torch

from rewards.pulls import Memory
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory
from sdo_ray.training.checkpoints import (
    AVERAGE,
    ENGINE,
    KEPT,
    POLICY,
    PROGRESS,
    Made,
    checkpoint_bytes,
    read_average,
    read_policy,
    read_progress,
    workers_bound,
)
from sdo_ray.training.records import memory_after
from sdo_ray.training.settings import TrainerSettings
from sdo_ray.training.standing import check_trainers
from tests.support.updates import report


def checkpoint(directory: Path, progress: object) -> ray.train.Checkpoint:
    """Without the optimizer's part, which whoever asks for progress must not need."""
    (directory / PROGRESS).write_text(json.dumps(progress))
    safetensors.torch.save_file({"b": torch.ones(2), "a": torch.zeros(3)}, directory / POLICY)
    return ray.train.Checkpoint.from_directory(str(directory))


def test_progress_and_policy_are_read_by_themselves(tmp_path: Path) -> None:
    reports = [report(0), report(1)]
    found = checkpoint(tmp_path, {"update": 2, "reports": [each.to_json() for each in reports]})
    assert read_progress(found) == Made(2, memory_after(reports), tuple(reports))
    policy = read_policy(found)
    assert list(policy) == ["a", "b"]
    assert torch.equal(policy["b"], torch.ones(2))


def test_the_average_is_handed_out_where_there_is_one(tmp_path: Path) -> None:
    found = checkpoint(tmp_path, {"update": 2, "reports": []})
    assert read_average(found) is None
    safetensors.torch.save_file({"a": torch.full((3,), 0.5)}, tmp_path / AVERAGE)
    for found_there in (read_average(found), read_policy(found)):
        assert found_there is not None
        assert torch.equal(found_there["a"], torch.full((3,), 0.5))


def test_progress_of_earlier_versions_is_read(tmp_path: Path) -> None:
    old = report(0).to_json()
    old["num_left_out"] = old.pop("num_skipped")
    assert read_progress(checkpoint(tmp_path, {"update": 1, "reports": [old]})).reports == (report(0),)


def test_checkpoints_of_earlier_versions_are_for_their_number_of_trainers(tmp_path: Path) -> None:
    found = checkpoint(tmp_path, {"update": 1, "memory": Memory().to_json()})
    assert workers_bound(found) is None
    (tmp_path / ENGINE).mkdir()
    for rank in range(3):
        (tmp_path / ENGINE / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
    assert workers_bound(found) == 3


def test_trainers_that_cannot_read_a_checkpoint_of_an_earlier_version_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, found = RunDirectory(str(tmp_path), "a"), checkpoint(tmp_path, {"update": 1, "memory": Memory().to_json()})
    monkeypatch.setattr("sdo_ray.training.standing.kept", lambda run: {1: found})
    check_trainers(run, TrainerSettings(count=2, dtype="bfloat16"))
    (tmp_path / ENGINE).mkdir()
    (tmp_path / ENGINE / "zero_pp_rank_0_mp_rank_00_optim_states.pt").touch()
    check_trainers(run, TrainerSettings())
    with pytest.raises(SettingsError, match=r"^count: got 2, .*, of an earlier version, is for 1; go on with 1 until"):
        check_trainers(run, TrainerSettings(count=2))
    with pytest.raises(
        SettingsError, match=r"^dtype: got 'bfloat16', .*, of an earlier version, is for float32; go on"
    ):
        check_trainers(run, TrainerSettings(dtype="bfloat16"))


def test_room_is_asked_for_those_kept_and_the_next() -> None:
    assert checkpoint_bytes({"a": torch.zeros(10)}) == 10 * 4 * 5 * (KEPT + 1)
