"""A run's name and its settings."""

from pathlib import Path

import pytest

from sdo_ray.config.align import AlignSettings
from sdo_ray.config.loading import load_settings
from sdo_ray.config.run import keep_model, keep_settings, model_of, open_run
from sdo_ray.models.settings import ModelSettings
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory
from tests.support.hub import COMMIT, cached_hub_model
from tests.support.runs import tiny_settings


@pytest.fixture
def settings(tiny_base: Path, tmp_path: Path) -> AlignSettings:
    return load_settings(AlignSettings, tiny_settings(tmp_path, tiny_base))


def test_opening_writes_nothing(settings: AlignSettings, tmp_path: Path) -> None:
    open_run(settings)
    assert not (tmp_path / "runs").exists()


def test_the_same_settings_open_it_again_and_others_do_not(settings: AlignSettings) -> None:
    run = open_run(settings)
    keep_settings(run, settings)
    assert open_run(settings).uri == run.uri
    other = settings.model_copy(update={"plan": settings.plan.model_copy(update={"options": {"K": 2}})})
    with pytest.raises(SettingsError, match=r"plan\.options\.K: the run 'tiny' has 1, got 2"):
        open_run(other)


def test_demands_count_what_runs_at_once(settings: AlignSettings) -> None:
    said = [str(demand) for demand in settings.demands()]
    assert said[0] == "samplers: 2 x (1 CPU)"
    assert said[-1] == "trainers: 2 x (1 CPU)"  # and not the evaluator, which starts when the trainers are gone
    evaluated = {"evaluators": [settings.evaluation.evaluators[0].model_copy(update={"num_gpus": 1.0})]}
    other = settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update=evaluated)})
    assert str(other.demands()[-1]).endswith("1 x (1 CPU + 1 GPU)")


def test_previews_are_due_every_nth_and_last_update(settings: AlignSettings) -> None:
    # batch_size 8: updates 0, 3 and 5 of six
    assert settings.sampler_config().preview_rows == {0, 24, 40}


def test_a_run_reads_the_commit_that_it_started_with(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_hub_model(tiny_base, tmp_path, "org/name", monkeypatch)
    model, run = ModelSettings(base="org/name"), RunDirectory(str(tmp_path / "runs"), "a")
    started = model_of(model, run)
    assert started.reference == f"org/name@{COMMIT}"
    keep_model(run, started)
    (tmp_path / "models--org--name/refs/main").write_text("f" * 40)
    assert model_of(model, run) == started
    with pytest.raises(SettingsError, match=r"model\.base: 'org/name' cannot be read"):
        model_of(model, RunDirectory(str(tmp_path / "runs"), "b"))
