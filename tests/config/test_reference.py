"""docs/configuration.md is what the declarations say."""

from pathlib import Path

import yaml

from pipelines.commands import commands_with_settings
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.reference import reference
from sdo_ray.tracking.provenance import flatten

REPOSITORY = Path(__file__).parents[2]


def test_the_committed_file_is_what_the_command_prints() -> None:
    assert (REPOSITORY / "docs/configuration.md").read_text() == reference(commands_with_settings()), (
        "run: python -m pipelines.reference > docs/configuration.md"
    )


def test_every_setting_is_in_it_and_described() -> None:
    text = reference(commands_with_settings())
    example = AlignSettings.model_validate(yaml.safe_load((REPOSITORY / "pipelines/configs/emoji.yaml").read_text()))
    for name in flatten(example.to_dict()):
        parts = ["N" if part.isdigit() else part for part in name.split(".")]
        row = ".".join(parts[:-1] if parts[-1] == "N" else parts)  # the elements of a list of values are no settings
        row = row.replace("plan.options.K", "plan.options")
        assert f"| `{row}` |" in text or f"### `{row}`" in text, (
            row
        )  # a section that is left out has no rows of its own
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert all(line.split(" | ")[4].rstrip("| ") for line in rows), "a setting without a description"
