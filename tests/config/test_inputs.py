"""A run and the prompts that it was begun with."""

from pathlib import Path

import pytest

from sdo_ray.config.inputs import FILE, Inputs
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(tmp_path), "run")


def inputs(train: list[str]) -> Inputs:
    return Inputs({"prompts.train": train, "evaluation.prompts": ["x"]})


def test_other_texts_or_another_order_are_refused(run: RunDirectory) -> None:
    begun = inputs(["a", "b"])
    begun.check(run)  # of a run that has not begun, or not with this version
    begun.keep(run)
    inputs(["a", "b"]).check(run)
    for changed in (["b", "a"], ["a"], ["a", "b", "c"], ["a", "b\n"]):
        with pytest.raises(SettingsError, match=r"^prompts\.train: what it names is not what the run 'run' was begun"):
            inputs(changed).check(run)


def test_a_damaged_file_says_what_is_lost(run: RunDirectory) -> None:
    run.write(FILE, b'{"prompts.tr')
    with pytest.raises(SettingsError, match=r"inputs\.json is damaged: .* lost with it: whether the prompts"):
        inputs(["a"]).check(run)
