"""What CONTRIBUTING.md says of each addition holds for those that are there: known by its one file, and documented."""

from pathlib import Path

import rewards
from pipelines.commands import COMMANDS
from rewards.__main__ import table
from sdo_ray.backprop import available
from sdo_ray.models.trained.registry import KINDS

REPOSITORY = Path(__file__).parents[2]


def page(name: str) -> str:
    return (REPOSITORY / "docs" / name).read_text()


def test_every_reward_has_its_file_and_its_row() -> None:
    for name in rewards.available():
        assert (REPOSITORY / f"rewards/{name}.py").is_file(), name
    # `python -m rewards --table` prints it.
    specs = {name: spec for name in rewards.available() if (spec := rewards.spec_of(name)) is not None}
    assert table(specs) in page("rewards.md")


def test_every_estimator_has_its_row() -> None:
    table = page("method.md")
    assert [name for name in available() if f"`{name}`" not in table] == []


def test_every_kind_has_its_file_and_is_documented() -> None:
    for name in KINDS:
        assert (REPOSITORY / f"sdo_ray/models/trained/{name}.py").is_file(), name
        assert f"`{name}`" in page("method.md") or f"train: {name}" in page("own-model.md"), name


def test_every_job_has_its_driver_and_settings() -> None:
    for name, command in COMMANDS.items():
        assert (REPOSITORY / f"pipelines/{name}.py").is_file(), name
        if command.settings is not None:
            assert command.settings_class().__module__ == command.settings.partition(":")[0]
