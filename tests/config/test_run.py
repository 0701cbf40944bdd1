"""A run's name and its settings."""

import argparse
from pathlib import Path

import pytest

from pipelines.job import add_change, add_set
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.loading import load_settings
from sdo_ray.config.run import CHANGES, keep_reference, keep_settings, model_of, open_run
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


def changed(settings: AlignSettings, **sections: dict[str, object]) -> AlignSettings:
    update = {name: getattr(settings, name).model_copy(update=values) for name, values in sections.items()}
    return settings.model_copy(update=update)


def test_where_how_long_and_how_often_may_change_and_is_said(
    settings: AlignSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_settings(open_run(settings), settings)
    terms = [term.model_copy(update={"num_gpus": 1.0, "timeout": 9.0}) for term in settings.rewards.terms]
    other = changed(
        settings,
        samplers={"count": 7, "num_gpus": 1.0},
        trainers={"max_failures": 9, "num_cpus": 2.0},
        training={"updates": 9, "checkpoint_every": 1},
        tracking={"preview_every": 2},
        rewards={"terms": terms},
    )
    keep_settings(open_run(other), other)
    said = capsys.readouterr().out
    assert "tiny: samplers.count was 2 and is 7 from here on" in said
    assert said.count("from here on") == 7 + 2 * len(terms)
    keep_settings(open_run(other), other)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("samplers", {"batch_size": 4}),
        ("training", {"learning_rate": 0.5}),
        ("training", {"max_policy_lag": 1}),
        ("trainers", {"zero_stage": 1}),
        ("run", {"seed": 4}),
    ],
)
def test_the_mathematics_may_not_change(settings: AlignSettings, section: str, values: dict) -> None:
    keep_settings(open_run(settings), settings)
    other = changed(settings, samplers={"count": 7})
    with pytest.raises(SettingsError) as caught:
        open_run(changed(other, **{section: values}))
    assert [problem.setting for problem in caught.value.problems] == [f"{section}.{next(iter(values))}", "run.name"]


def test_what_is_meant_may_change_and_is_kept(
    settings: AlignSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = open_run(settings)
    assert keep_settings(run, settings) == {}
    file = tmp_path / "settings.yaml"
    given = argparse.ArgumentParser()
    add_set(given)
    add_change(given)
    line = [
        "--set",
        "samplers.count=3",
        "--change",
        "training.learning_rate=0.002",
        "--change",
        "samplers.batch_size=4",
    ]
    overrides = given.parse_args(line).overrides
    meant = load_settings(AlignSettings, file, overrides)
    assert meant.run.change == ["training.learning_rate", "samplers.batch_size"]
    expected = {
        "samplers.batch_size": "2 -> 4",
        "samplers.count": "2 -> 3",
        "training.learning_rate": "0.01 -> 0.002",
    }
    assert keep_settings(open_run(meant), meant) == expected
    assert "tiny: training.learning_rate was 0.01 and is 0.002 from here on" in capsys.readouterr().out
    [change] = run.read_json(CHANGES)
    assert {name: change[name] for name in expected} == expected
    # From then on the run has them, and who gives the old ones does not mean it.
    assert keep_settings(open_run(meant), meant) == {}
    with pytest.raises(SettingsError, match=r"training\.learning_rate: the run 'tiny' has 0\.002, got 0\.01"):
        open_run(settings)


def test_what_a_run_has_made_depends_on_does_not_change_on_purpose(settings: AlignSettings, tmp_path: Path) -> None:
    keep_settings(open_run(settings), settings)
    for change in ("model.lora.rank=3", "run.seed=4", "training.optimizer=muon", "training.lerning_rate=1"):
        name = change.partition("=")[0]
        other = load_settings(AlignSettings, tmp_path / "settings.yaml", [f"run.change=[{name}]"])
        with pytest.raises(SettingsError, match=rf"^run\.change: got {name}, on which depends what the run has made"):
            open_run(other)


def test_damaged_settings_say_what_to_do(settings: AlignSettings) -> None:
    run = open_run(settings)
    run.write("settings.json", b'{"run": {"na')
    with pytest.raises(SettingsError, match=r"settings\.json is damaged: .* give it the same settings again"):
        open_run(settings)


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
    keep_reference(run, started.reference)
    (tmp_path / "models--org--name/refs/main").write_text("f" * 40)
    assert model_of(model, run) == started
    with pytest.raises(SettingsError, match=r"model\.base: 'org/name' cannot be read"):
        model_of(model, RunDirectory(str(tmp_path / "runs"), "b"))
