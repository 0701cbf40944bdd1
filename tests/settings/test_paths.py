"""Relative paths are found by the types of settings."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field

from sdo_ray.settings import PathsAmong, Settings, SettingsPath, relative_paths


class Part(Settings):
    old_names: ClassVar[dict[str, str]] = {"picture": "image"}

    image: SettingsPath = ""
    name: str = "a/b"
    options: Annotated[dict[str, Any], PathsAmong(lambda part: {"weights", f"{part.get('name')}_file"})] = Field(
        default_factory=dict
    )


class Whole(Settings):
    file: SettingsPath
    maybe: SettingsPath | None = None
    several: list[SettingsPath] = Field(default=[])
    by_name: dict[str, SettingsPath] = Field(default={})
    part: Part = Part()
    best: Part | None = None
    parts: list[Part] = Field(default=[])


def found(**given: Any) -> dict[str, str]:
    return {place.setting: place.path for place in relative_paths(Whole, given)}


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({"file": "a.csv", "maybe": "b.csv"}, ["file", "maybe"]),
        ({"several": ["a", "/b", "c"]}, ["several.0", "several.2"]),
        ({"by_name": {"x": "a", "y": "s3://b"}}, ["by_name.x"]),
        ({"part": {"image": "a.png", "name": "other/text"}}, ["part.image"]),
        ({"part": {"picture": "a.png"}}, ["part.picture"]),
        ({"best": {"image": "a.png"}, "parts": [{}, {"image": "b.png"}]}, ["best.image", "parts.1.image"]),
        (
            {"parts": [{"name": "x", "options": {"weights": "w", "x_file": "f", "y_file": "g", "size": 3}}]},
            ["parts.0.options.weights", "parts.0.options.x_file"],
        ),
    ],
)
def test_every_place_that_a_type_can_have(given: dict[str, Any], settings: list[str]) -> None:
    assert sorted(found(**given)) == settings


@pytest.mark.parametrize("path", ["/a/b", "~/a", "~someone/a", "s3://bucket/a", "zoo://emoji"])
def test_left_alone(path: str) -> None:
    assert not found(file=path, several=[path], part={"image": path})


def test_what_is_not_legal_is_no_path_and_no_error() -> None:
    assert not found(file=3, several="a", by_name=["a"], part="a", best=None, parts={"0": {"image": "a"}}, other="a")


def test_a_path_starts_at_a_directory(tmp_path: Path) -> None:
    given: dict[str, Any] = {"several": ["../a", "/b"], "parts": [{"options": {"weights": "w"}}]}
    for place in relative_paths(Whole, given):
        place.start_at(tmp_path / "below")
    assert given == {
        "several": [str(tmp_path / "a"), "/b"],
        "parts": [{"options": {"weights": str(tmp_path / "below/w")}}],
    }
