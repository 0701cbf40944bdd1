"""Relative paths in settings files start at the file, in every command's settings."""

import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor

from pipelines.commands import commands_with_settings
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.cycle import CycleSettings
from sdo_ray.config.evaluate import EvaluateSettings
from sdo_ray.config.loading import load_settings
from sdo_ray.config.optimize import OptimizeSettings
from sdo_ray.config.run import FILE, keep_settings, open_run
from sdo_ray.prompts.prepare import Preparation
from sdo_ray.settings import IsPath, Settings, SettingsError
from sdo_ray.settings.paths import PathsAmong
from tests.support.cycles import tiny_cycle
from tests.support.runs import tiny_settings

STYLE = {"name": "gram_style", "options": {"image": "style.png", "size": 64}}
SETTINGS = commands_with_settings()
LEARNED = {"name": "preference", "options": {"weights": "weights/mine.safetensors"}}


class OwnReward:
    """A reward with a file of its own."""

    differentiable = False

    def __init__(self, *, head: Path | None = None, label: str = "a/b") -> None:
        self.given = head, label

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Nothing in particular."""
        return images.mean((1, 2, 3))


class Network:
    """A feature network with files of its own."""

    def __init__(self, *, weights: Path, labels: Path | None = None, model: str = "org/name", size: int = 8) -> None:
        self.given = weights, labels, model, size


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where settings files are, which is not the working directory."""
    (tmp_path / "work").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def write(path: Path, **sections: Any) -> Path:
    path.write_text(yaml.safe_dump(sections))
    return path


def test_options_of_rewards_and_evaluators(home: Path, tiny_base: Path) -> None:
    path = tiny_settings(home, tiny_base, rewards={"terms": [LEARNED]})
    settings = load_settings(
        AlignSettings,
        write(path, **(yaml.safe_load(path.read_text()) | {"evaluation": {"prompts": "p.txt", "evaluators": [STYLE]}})),
    )
    assert settings.rewards.terms[0].options["weights"] == str(home / "weights/mine.safetensors")
    assert settings.evaluation.evaluators[0].options == {"image": str(home / "style.png"), "size": 64}
    assert settings.evaluation.prompts == str(home / "p.txt")
    given = load_settings(AlignSettings, path, ["evaluation.evaluators.0.options.image=style.png"])
    assert given.evaluation.evaluators[0].options["image"] == "style.png"  # where the command line is typed


def test_rewards_and_features_of_an_evaluation(home: Path) -> None:
    path = write(
        home / "e.yaml",
        run={"name": "a"},
        models={"base": "zoo://emoji", "candidate": "runs/a"},
        prompts={"heldout": "p.parquet"},
        rewards=[STYLE, LEARNED, {"name": f"{__name__}:OwnReward", "options": {"head": "head.bin", "label": "c/d"}}],
        features={
            "name": "tests.config.test_paths:Network",
            "options": {"weights": "w.safetensors", "labels": "~/labels", "model": "some/model"},
        },
        reference={"path": "real"},
    )
    settings = load_settings(EvaluateSettings, path)
    assert [reward.options for reward in settings.rewards] == [
        {"image": str(home / "style.png"), "size": 64},
        {"weights": str(home / "weights/mine.safetensors")},
        {"head": str(home / "head.bin"), "label": "c/d"},
    ]
    assert settings.features is not None
    assert settings.features.options == {
        "weights": str(home / "w.safetensors"),
        "labels": "~/labels",
        "model": "some/model",
    }
    assert settings.reference is not None
    assert settings.reference.path == str(home / "real")
    assert settings.models.candidate.model == "runs/a"


def test_rows_to_optimise(home: Path) -> None:
    path = write(
        home / "o.yaml",
        run={"name": "a"},
        model={"base": "zoo://emoji"},
        rows={"path": "rows.csv"},
        optimization={"variable": "latents", "learning_rate": 0.1},
        rewards={"terms": [STYLE]},
    )
    settings = load_settings(OptimizeSettings, path)
    assert settings.rows.path == str(home / "rows.csv")
    assert settings.rewards.terms[0].options["image"] == str(home / "style.png")


def test_a_cycle_and_the_stages_files(home: Path, tiny_base: Path) -> None:
    (home / "stages").mkdir()
    path = tiny_cycle(home / "stages", tiny_base, "a > 0")
    align = yaml.safe_load((home / "stages/settings.yaml").read_text())
    align["evaluation"]["evaluators"] = [STYLE]
    write(home / "stages/settings.yaml", **align)
    cycle = yaml.safe_load(path.read_text())
    for stage in ("align", "evaluate", "promote"):
        cycle[stage]["config"] = f"stages/{cycle[stage]['config']}"
    settings = load_settings(CycleSettings, write(home / "cycle.yaml", **cycle))
    assert settings.align.config == str(home / "stages/settings.yaml")
    loaded = settings.align_settings(Preparation("/t", "/h", 0, 0, 0, {}))
    assert loaded.evaluation.evaluators[0].options["image"] == str(home / "stages/style.png")
    assert (loaded.prompts.train, loaded.evaluation.prompts) == ("/t", "/h")


def test_names_of_nothing_are_refused_by_the_checks_and_not_here(home: Path) -> None:
    rows = {"run": {"name": "a"}, "model": {"base": "zoo://emoji"}, "rows": {"given": [{"prompt": "a"}]}}
    variable = {"variable": "latents", "learning_rate": 0.1}
    for name in ("nothing", "no.module:Thing", "tests.config.test_paths:nothing"):
        terms = {"terms": [{"name": name, "options": {"image": "a.png"}}]}
        settings = load_settings(OptimizeSettings, write(home / "o.yaml", **rows, optimization=variable, rewards=terms))
        assert settings.rewards.terms[0].options == {"image": "a.png"}


def test_a_run_that_kept_a_relative_path_is_resumed_from_where_it_was_started(
    home: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_settings(home, tiny_base, evaluation={"evaluators": [STYLE]})
    settings = load_settings(AlignSettings, path)
    run = open_run(settings)
    keep_settings(run, settings)
    kept = run.read_json(FILE)
    kept["evaluation"]["evaluators"][0]["options"]["image"] = "style.png"  # as an earlier version kept it
    run.write_json(FILE, kept)
    with pytest.raises(SettingsError, match=re.escape(f"{Path.cwd() / 'style.png'}")):
        open_run(settings)
    monkeypatch.chdir(home)
    assert open_run(settings).uri == run.uri
    assert json.loads(Path(run.path, FILE).read_text()) == kept


EXEMPT = {
    "run.storage": "results, which lie where the command is run",
    "evaluation.storage": "results of another run, as `run.storage`",
    "prompts.inputs": "names of columns; paths in them start at the prompts' file",
    "rows.inputs": "likewise",
    "output": "results, as `run.storage`",
    "model.base": "a hub id as well, which looks like a relative path",
    "models.base.model": "a hub id as well, or a run in `run.storage`",
    "models.candidate.model": "a hub id as well, or a run in `run.storage`",
    "models.champion.model": "a hub id as well, or a run in `run.storage`",
    "models.base.adapter": "of a run in `run.storage`",
    "models.candidate.adapter": "of a run in `run.storage`",
    "models.champion.adapter": "of a run in `run.storage`",
}
"""Settings that tell of files and are not paths from the settings file -> why not."""

TELLS_OF_FILES = re.compile(r"\b(file|directory|path|folder)\b", re.IGNORECASE)
COLUMNS = re.compile(r"\bcolumn\b", re.IGNORECASE)
"""Of a file, which another setting names."""


def fields(kind: type[Settings], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in kind.model_fields.items():
        parts = (field.annotation, *typing.get_args(field.annotation))
        section = next((p for p in parts if isinstance(p, type) and issubclass(p, Settings)), None)
        if section is not None:
            yield from fields(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def marks(field: Any) -> list[Any]:
    inner = [mark for part in typing.get_args(field.annotation) for mark in getattr(part, "__metadata__", ())]
    return [*field.metadata, *inner]


@pytest.mark.parametrize("command", SETTINGS)
def test_settings_that_tell_of_files_are_paths(command: str) -> None:
    """A path that is forgotten here would start at the working directory, in silence."""
    seen = set()
    for name, field in fields(SETTINGS[command]):
        is_path = any(isinstance(mark, IsPath) for mark in marks(field))
        if not is_path and TELLS_OF_FILES.search(field.description) and not COLUMNS.search(field.description):
            assert name in EXEMPT, f"{name}: a SettingsPath? {field.description}"
            seen.add(name)
        if is_path:
            assert name not in EXEMPT
        if name.endswith("options") and "onstructor" in field.description:
            assert any(isinstance(mark, PathsAmong) for mark in field.metadata), name
    assert seen <= EXEMPT.keys()
