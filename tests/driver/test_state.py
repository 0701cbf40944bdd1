"""How far runs are, as seen from outside."""

from pathlib import Path

import pytest

import sdo_ray.config.cycle
import sdo_ray.cycle.record
import sdo_ray.evaluation.outcome
import sdo_ray.evaluation.result
import sdo_ray.input_optimization.results
from pipelines import fidelity, schedule
from pipelines.commands import commands_with_settings
from sdo_ray.driver import state as state_module
from sdo_ray.driver.lock import driver_lock
from sdo_ray.driver.state import COMPLETE_WITH, KNOWN_BY, SETTINGS, StateFile, state_of, states_in
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory


def begun(tmp_path: Path, name: str, section: str) -> RunDirectory:
    run = RunDirectory(str(tmp_path), name)
    run.write_json(SETTINGS, {"run": {"name": name}, section: {}})
    return run


def test_running_stopped_complete(tmp_path: Path) -> None:
    run = begun(tmp_path, "mine", "trainers")
    with driver_lock(run):
        StateFile(run, "align").write(3, 10, "updates", reward=0.5)
        state = state_of(run)
        assert state is not None
        assert (state.says, state.progress.done, state.progress.total) == ("running", 3, 10)
        assert state.progress.numbers == {"reward": 0.5}
        assert state.who is not None
        assert state.who.startswith("process ")
    assert state_of(run).says == "stopped"
    run.write_json(COMPLETE_WITH["align"], {})
    assert state_of(run).says == "complete"


def test_all_of_a_storage_those_of_earlier_versions_too(tmp_path: Path) -> None:
    begun(tmp_path, "b", "models")
    begun(tmp_path, "a", "trainers")
    begun(tmp_path, "c", "promote").write(SETTINGS, b"{")
    (tmp_path / "no run").mkdir()
    (tmp_path / "mlflow.db").write_text("")
    found = [(state.name, state.progress.command, state.says) for state in states_in(str(tmp_path))]
    assert found == [("a", "align", "stopped"), ("b", "evaluate", "stopped"), ("c", "?", "damaged")]
    assert list(states_in(str(tmp_path / "nowhere"))) == []
    with pytest.raises(SettingsError, match=r"run\.storage: .*mlflow\.db' cannot be read"):
        list(states_in(str(tmp_path / "mlflow.db")))


def test_it_is_not_written_at_every_step_but_at_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 2.0, 2.5])
    monkeypatch.setattr(state_module.time, "monotonic", lambda: next(clock))
    run, seen = begun(tmp_path, "mine", "trainers"), []
    state = StateFile(run, "align")
    for done in range(1, 5):
        state.write(done, 4, "updates")
        seen.append(state_of(run).progress.done)
    assert seen == [1, 1, 3, 4]


def test_a_storage_that_is_away_stops_nothing(tmp_path: Path) -> None:
    run = begun(tmp_path, "mine", "trainers")
    (tmp_path / "mine" / state_module.FILE).mkdir()
    StateFile(run, "align").write(1, 2, "updates")


def test_the_files_and_sections_are_those_of_the_commands() -> None:
    assert COMPLETE_WITH == {
        "align": sdo_ray.evaluation.outcome.FILE,
        "optimize": sdo_ray.input_optimization.results.FILE,
        "evaluate": sdo_ray.evaluation.result.NUMBERS,
        "fidelity": fidelity.NUMBERS,
        "schedule": schedule.NUMBERS,
        "cycle": sdo_ray.cycle.record.SUMMARY,
    }
    kinds = commands_with_settings()
    for section, command in KNOWN_BY.items():
        having = [name for name in COMPLETE_WITH if section in kinds[name].model_fields]
        assert having == [command]
    assert set(KNOWN_BY.values()) == COMPLETE_WITH.keys()
