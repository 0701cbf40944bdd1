"""Settings from YAML and `--set`."""

from pathlib import Path

import pytest
from pydantic import Field

from sdo_ray.config.align import AlignSettings
from sdo_ray.config.loading import load_settings
from sdo_ray.models.trained.lora import LoraSettings
from sdo_ray.settings import Settings, SettingsError
from tests.support.runs import tiny_settings

REPOSITORY = Path(__file__).parents[2]
EMOJI = REPOSITORY / "pipelines/configs/emoji.yaml"


class Part(Settings):
    """One of several."""

    name: str = Field(description="Its name.")
    weight: float = Field(1.0, description="Its weight.")


class Whole(Settings):
    """Something with parts."""

    rate: float = Field(0.1, gt=0, description="A rate.")
    note: str | None = Field(None, description="A note.")
    parts: list[Part] = Field(default_factory=list, description="The parts.")
    best: Part | None = Field(None, description="One that may not be there.")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write(tmp_path / "whole.yaml", "rate: 0.5\nparts:\n- {name: a}\n- {name: b, weight: 2}\n")


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.e-4", "0.0001", "1.0e-04", "+1e-4"])
def test_numbers_as_people_write_them(tmp_path: Path, whole: Path, text: str) -> None:
    assert load_settings(Whole, write(tmp_path / "n.yaml", f"rate: {text}")).rate == 1e-4
    assert load_settings(Whole, whole, [f"rate={text}"]).rate == 1e-4


def test_quoted_numbers_stay_text(tmp_path: Path) -> None:
    assert load_settings(Whole, write(tmp_path / "n.yaml", "note: '1e-4'")).note == "1e-4"


def test_set_reaches_into_lists_and_sections_that_are_not_there(whole: Path) -> None:
    settings = load_settings(
        Whole, whole, ["parts.0.weight=3", "parts.1.name=c", "best.name=d", "rate=2.0", "note=x=y", "rate=4.0"]
    )
    assert [(part.name, part.weight) for part in settings.parts] == [("a", 3.0), ("c", 2.0)]
    assert settings.best == Part(name="d")
    assert settings.note == "x=y"
    assert settings.rate == 4.0  # the last one counts


def test_changes_are_values(whole: Path) -> None:
    """A cycle's `set` is not written as text and read again, by which an emoji was two lone surrogates."""
    settings = load_settings(Whole, whole, changes={"note": "red 🍎: 1e5", "parts.0.name": "010"})
    assert settings.note.encode().decode() == "red 🍎: 1e5"
    assert settings.parts[0].name == "010"


def test_set_takes_yaml_values(whole: Path) -> None:
    settings = load_settings(Whole, whole, ["parts=[{name: only}]", "note=null"])
    assert settings.parts == [Part(name="only")]
    assert settings.note is None


class Sections(Settings):
    """Sections that may be left out."""

    part: Part = Field(default_factory=lambda: Part(name="usual"), description="One with defaults.")
    best: Part | None = Field(Part(name="first"), description="One for which null says that there is none.")
    needed: Part = Field(description="One without defaults.")


@pytest.fixture
def sections(tmp_path: Path) -> Path:
    return write(tmp_path / "sections.yaml", "part: {name: a, weight: 5}\nneeded: {name: b}\n")


def test_null_takes_a_section_back_to_its_defaults(sections: Path, tmp_path: Path) -> None:
    assert load_settings(Sections, sections, ["part=null"]).part == Part(name="usual")
    changed = load_settings(Sections, sections, ["part=null", "part.name=c"])  # nothing is left of weight: 5
    assert changed.part == Part(name="c", weight=1.0)
    empty = write(tmp_path / "empty.yaml", "part:\n  # name: commented out\nneeded: {name: b}\n")
    assert load_settings(Sections, empty).part == Part(name="usual")
    assert load_settings(Sections, empty, ["part.name=c"]).part == Part(name="c")


def test_null_keeps_its_meaning_where_it_has_one(sections: Path) -> None:
    assert load_settings(Sections, sections).best == Part(name="first")
    assert load_settings(Sections, sections, ["best=null"]).best is None
    with pytest.raises(SettingsError, match="needed: missing; it has no default, so give it"):
        load_settings(Sections, sections, ["needed=null"])
    with pytest.raises(SettingsError, match=r"part\.weight: got None"):
        load_settings(Sections, sections, ["part.weight=null"])


@pytest.mark.parametrize("train", ["full", "diffit"])
def test_what_is_trained_changes_on_the_command_line(train: str) -> None:
    with pytest.raises(SettingsError, match=r"`--set model\.lora=null`"):
        load_settings(AlignSettings, EMOJI, [f"model.train={train}"])
    model = load_settings(AlignSettings, EMOJI, [f"model.train={train}", "model.lora=null"]).model
    assert (model.train, model.lora) == (train, LoraSettings())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rate", "--set: got 'rate'; it takes section.key=value."),
        ("=1", "--set: got '=1'; it takes section.key=value."),
        ("rate=[1", "--set rate: '[1' is not a YAML value; quote it."),
        ("parts.2.name=x", "--set parts.2.name: '2' is no position in a list of 2; the first is 0."),
        ("parts.last.name=x", "--set parts.last.name: 'last' is no position in a list of 2; the first is 0."),
        ("rate.per.second=1", "--set rate.per.second: 'rate' is a value, not a section."),
        ("parts.0.nmae=x", "parts.0.nmae: unknown setting; there are name, weight; did you mean 'name'?"),
        ("best.nmae=x", "best.nmae: unknown setting; there are name, weight; did you mean 'name'?"),
        ("colour=x", "colour: unknown setting; there are rate, note, parts, best; remove it."),
        ("rate=0", "rate: got 0 (int); input should be greater than 0."),
        ("note=3", "note: got 3 (int); input should be a valid string."),
        ("parts=[{}]", "parts.0.name: missing; it has no default, so give it."),
    ],
)
def test_says_what_is_wrong(whole: Path, override: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(Whole, whole, [override])
    assert said in map(str, refused.value.problems)


def test_every_problem_at_once(whole: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(Whole, whole, ["rate=x", "colour=x", "parts.0.weight=x"])
    assert len(refused.value.problems) == 3


def test_paths_start_at_the_settings_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = EMOJI.read_text()
    home = tmp_path / "elsewhere"
    home.mkdir()
    relative = load_settings(AlignSettings, write(home / "a.yaml", text))
    assert relative.prompts.train == str(home / "prompts/emoji_train.parquet")
    assert relative.evaluation.prompts == str(home / "prompts/emoji_heldout.parquet")
    for given in ("/data/p.parquet", "s3://bucket/p.parquet"):
        moved = text.replace("prompts/emoji_train.parquet", given)
        assert load_settings(AlignSettings, write(home / "b.yaml", moved)).prompts.train == given
    # What is typed on the command line starts, as everything there, at the working directory.
    assert load_settings(AlignSettings, home / "a.yaml", ["prompts.train=p.parquet"]).prompts.train == "p.parquet"


def test_settings_do_not_change_after_they_were_checked(whole: Path) -> None:
    settings = load_settings(Whole, whole)
    with pytest.raises(ValueError, match="frozen"):
        settings.rate = -1.0  # type: ignore[misc]


def test_a_round_trip_through_plain_values(whole: Path) -> None:
    settings = load_settings(AlignSettings, EMOJI)
    assert AlignSettings.model_validate(settings.to_dict()) == settings


def test_null_takes_a_mapping_or_a_list_back_to_its_default(tiny_base: Path, tmp_path: Path) -> None:
    path = tiny_settings(tmp_path, tiny_base, sampling={"options": {"height": 8}})
    changes = ["sampling.options=null", "tracking.preview_prompts=null", "plan.options=null"]
    settings = load_settings(AlignSettings, path, changes)
    assert settings.sampling.options == settings.plan.options == {}
    assert settings.tracking.preview_prompts == []


def test_a_path_may_start_at_home(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tiny_settings(tmp_path, tiny_base, prompts={"train": "~/prompts.parquet"})
    settings = load_settings(AlignSettings, path, ["evaluation.prompts=~/heldout.parquet"])
    assert settings.prompts.train == str(tmp_path / "prompts.parquet")
    assert settings.evaluation.prompts == str(tmp_path / "heldout.parquet")
