"""How models are named, and what stays the same of an evaluation that is resumed."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdo_ray.config.roles import check_roles, find_roles, keep_roles
from sdo_ray.config.trained_otherwise import said_of_questions, said_of_sampling
from sdo_ray.evaluation.models import AdaptedModel, WholeModel
from sdo_ray.evaluation.outcome import Outcome, write_outcome
from sdo_ray.evaluation.settings import ModelsSettings
from sdo_ray.models.export import export_model
from sdo_ray.models.settings import ModelSettings
from sdo_ray.models.trained.lora import save_lora
from sdo_ray.rollout.settings import SamplingSettings
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory
from tests.models.adapters import LORA, trained_weights

NO_SERVER = "sqlite:////nowhere/mlflow.db"
SAMPLING = SamplingSettings(num_inference_steps=2)


def find(**models: Any):
    return find_roles(ModelsSettings.model_validate(models), SAMPLING, NO_SERVER)


def finished_run(directory: Path, base: Path, train: str = "lora") -> RunDirectory:
    """The directory of an alignment run, with what `sdo align` leaves."""
    lora = {"rank": LORA.rank, "alpha": LORA.alpha, "targets": LORA.targets}
    model: dict[str, Any] = {"base": str(base), "train": train} | ({"lora": lora} if train == "lora" else {})
    run = RunDirectory(str(directory), f"aligned-{train}")
    terms = [{"name": "preference", "weight": 1.0}, {"name": "jpeg_compressibility", "weight": 0.0}]
    run.write_json("settings.json", {"model": model, "rewards": {"terms": terms}})
    settings = ModelSettings.model_validate(model)
    if train == "lora":
        export_model(Path(run.path), settings, trained_weights(base))
    else:
        from sdo_ray.models.policy import initial_policy

        export_model(Path(run.path), settings, initial_policy(settings, 0))
    write_outcome(run, Outcome((), {}))
    return run


@pytest.fixture
def adapter(tiny_base: Path, tmp_path: Path) -> Path:
    return save_lora(str(tiny_base), LORA, trained_weights(tiny_base), tmp_path / "adapter").parent


def test_whole_models_and_adapters(tiny_base: Path, adapter: Path) -> None:
    base = str(tiny_base)
    roles = find(base=base, candidate={"adapter": str(adapter)}, champion={"model": base, "adapter": str(adapter)})
    assert list(roles) == ["base", "candidate", "champion"]
    assert roles["base"].source == WholeModel(base, "float32")
    weights = (adapter / "pytorch_lora_weights.safetensors").read_bytes()
    assert roles["candidate"].source == AdaptedModel(base, "float32", weights)
    assert roles["candidate"].where == f"{base} + {adapter}"
    assert roles["candidate"] == roles["champion"]
    assert roles["base"].sha256 != roles["candidate"].sha256
    assert roles["base"].history is None


def test_a_type_of_a_component_that_there_is_not_is_refused(tiny_base: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"models\.dtypes: .* has no transformer with weights; it has text_encoder, "
    ):
        find(base=str(tiny_base), candidate=str(tiny_base), dtypes={"transformer": "float16"})


def test_an_adapted_model_is_loaded_from_its_bytes(tiny_base: Path, adapter: Path) -> None:
    source = find(base=str(tiny_base), candidate={"adapter": str(adapter)})["candidate"].source
    pipeline = source.load("cpu")
    assert any(".lora_B." in name for name, _ in pipeline.unet.named_parameters())
    assert not any(parameter.requires_grad for parameter in pipeline.text_encoder.parameters())


def test_a_finished_run_with_an_adapter(tiny_base: Path, tmp_path: Path) -> None:
    run = finished_run(tmp_path, tiny_base)
    adapter = Path(run.path) / "adapter"
    roles = find(base=str(tiny_base), candidate=run.uri, champion={"adapter": str(adapter)}, dtype="bfloat16")
    assert roles["candidate"].source == AdaptedModel(
        str(tiny_base), "bfloat16", (adapter / "pytorch_lora_weights.safetensors").read_bytes()
    )
    assert roles["candidate"].where == run.uri
    assert roles["candidate"].sha256 == roles["champion"].sha256  # the same files
    history = roles["candidate"].history
    assert history is not None
    assert history.learned == {"preference"}
    assert history.curves == {}  # no checkpoint


def test_a_finished_run_at_a_uri(tiny_base: Path, tmp_path: Path) -> None:
    run = finished_run(tmp_path, tiny_base)
    local, remote = (
        find(base=str(tiny_base), candidate=where)["candidate"] for where in (run.uri, f"file://{run.uri}")
    )
    assert local.source == remote.source
    full = finished_run(tmp_path, tiny_base, "full")
    local, remote = (
        find(base=str(tiny_base), candidate=where)["candidate"] for where in (full.uri, f"file://{full.uri}")
    )
    assert local.source == remote.source
    # A file system that nothing but its URI names, as those of clusters are.
    with pytest.raises(SettingsError, match=r"models\.candidate: .* is a complete model and not on a disk; copy it"):
        find(base=str(tiny_base), candidate=f"local://{full.uri}")


def test_a_finished_run_with_a_complete_model(tiny_base: Path, tmp_path: Path) -> None:
    run = finished_run(tmp_path, tiny_base, "full")
    role = find(base=str(tiny_base), candidate=run.uri)["candidate"]
    assert role.source == WholeModel(f"{run.uri}/model", "float32")


@pytest.mark.parametrize("what", ["run", "registered"])
def test_what_has_its_own_result_takes_no_adapter(tiny_base: Path, tmp_path: Path, adapter: Path, what: str) -> None:
    model = finished_run(tmp_path, tiny_base).uri if what == "run" else "models:/tiny/1"
    with pytest.raises(SettingsError, match=r"models\.candidate: .*; name no adapter on it"):
        find(base=str(tiny_base), candidate={"model": model, "adapter": str(adapter)})


def test_a_resumed_evaluation_has_the_same_models(tiny_base: Path, adapter: Path, tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path), "compare")
    roles = find(base=str(tiny_base), candidate={"adapter": str(adapter)})
    check_roles(run, roles)
    assert not (tmp_path / "compare").exists()
    keep_roles(run, roles)
    check_roles(run, roles)
    assert json.loads((tmp_path / "compare/models.json").read_text())["base"]["where"] == str(tiny_base)
    save_lora(str(tiny_base), LORA, trained_weights(tiny_base, seed=9), adapter)
    changed = find(base=str(tiny_base), candidate={"adapter": str(adapter)})
    with pytest.raises(SettingsError, match=r"models\.candidate: the evaluation was started with") as caught:
        check_roles(run, changed)
    assert len(caught.value.problems) == 2
    assert "give this evaluation another name" in str(caught.value.problems[1])


def test_text_is_short_for_a_model() -> None:
    short = ModelsSettings.model_validate({"base": "zoo://emoji", "candidate": "runs/a"})
    long = ModelsSettings.model_validate({"base": {"model": "zoo://emoji"}, "candidate": {"model": "runs/a"}})
    assert short == long


def test_questions_that_a_model_was_trained_on_are_said(tiny_base: Path, tmp_path: Path) -> None:
    run = finished_run(tmp_path, tiny_base)
    models = ModelsSettings(base=str(tiny_base), candidate=run.uri)
    questions = pa.table({"prompt": ["A  Cat", "a dog"]})
    assert said_of_questions(models, questions) == []  # it says nothing of its prompts, as their file is not there
    pq.write_table(pa.table({"prompt": ["a cat", "a cow"]}), tmp_path / "learned.parquet")
    settings = run.read_json("settings.json")
    run.write_json("settings.json", settings | {"prompts": {"train": str(tmp_path / "learned.parquet")}})
    [said] = said_of_questions(models, questions)
    assert said.startswith("candidate: 1 of 2 prompts are also trained on, such as 'A Cat'")


def test_a_model_that_is_drawn_otherwise_than_it_was_trained_is_said(tiny_base: Path, tmp_path: Path) -> None:
    run = finished_run(tmp_path, tiny_base)
    trained = SamplingSettings(num_inference_steps=2, options={"height": 24, "width": 16, "eta": 0.0})
    run.write_json("settings.json", run.read_json("settings.json") | {"sampling": trained.to_dict()})
    models = ModelsSettings(base=str(tiny_base), candidate=run.uri)
    assert said_of_sampling(models, trained) == []
    other = SamplingSettings(num_inference_steps=4, options={"height": 32, "eta": 0.0})
    assert said_of_sampling(models, other) == [
        "candidate: it was trained with height 24 (here 32), num_inference_steps 2 (here 4), width 16 (here by default)"
    ]
