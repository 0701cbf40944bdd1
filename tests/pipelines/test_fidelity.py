"""`sdo fidelity`: the real command on a tiny model, its numbers, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

from pipelines.fidelity import main
from tests.support.runs import AlignProcess

CHEAP = [{"cache": "taylor"}, {"cache": {"name": "taylor", "every": 2}, "fast_copy": "bfloat16"}]
PLANS = [{"name": "sdo", "options": {"K": 4}}, {"name": "draft", "options": {"K": 4}}, {"name": "refl"}]


def settings_file(directory: Path, base: Path, **sections: dict[str, Any]) -> Path:
    pq.write_table(pa.table({"prompt": list("abcd")}), directory / "prompts.parquet")
    settings: dict[str, Any] = {
        "run": {"name": "tiny", "storage": str(directory / "runs"), "seed": 3},
        "model": {"base": str(base), "lora": {"rank": 2, "alpha": 4.0, "targets": ["to_q", "to_v"]}},
        "prompts": {"train": "prompts.parquet"},
        "sampling": {"num_inference_steps": 4, "guidance_scale": 2.0},
        "rewards": {"terms": [{"name": "tests.support.ink:Redness"}]},
        "samplers": {"count": 2, "batch_size": 2},
        "fidelity": {"batches": 2, "draws": 2, "plans": PLANS, "cheap_steps": CHEAP},
    }
    for section, changes in sections.items():
        settings[section] |= changes
    path = directory / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def command(path: Path) -> str:
    with AlignProcess(str(path), "--set", "fidelity.checkpoint=true", command="fidelity") as run:
        said = run.finish()
    assert "actor restart will fail" not in said
    return said


@pytest.mark.slow
def test_numbers_image_and_metrics(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = settings_file(tmp_path, tiny_base)
    said = command(path)
    run = tmp_path / "runs" / "tiny"
    numbers = json.loads((run / "fidelity.json").read_text())
    full, sdo, draft, refl, held, fast = numbers["plans"]
    names = ["full", "sdo K 4", "draft K 4", "refl", "sdo K 4 taylor", "sdo K 4 taylor every 2- copy dtype bfloat16"]
    assert [plan["plan"] for plan in numbers["plans"]] == names
    # With every step kept there is none that could be cheap.
    for cheap in (held, fast):
        assert cheap["exact_cosine"] == pytest.approx(1, abs=1e-6)
    assert "cosine with exact steps" in said
    # draft over all steps is full, computed with activations kept instead of made again.
    for same in (full, draft):
        assert same["cosine"] == pytest.approx(1, abs=1e-6)
        assert same["norm_ratio"] == pytest.approx(1, abs=1e-5)
        assert same["variance"] == pytest.approx(0, abs=1e-9)
    assert draft["saved_ratio"] > 2
    # sdo over all steps is the sum of the single ones.
    assert sdo["cosine"] == pytest.approx(numbers["direct_cosine"], abs=1e-6)
    assert 0 < refl["cosine"] < 1
    assert [step["step"] for step in numbers["steps"]] == [0, 1, 2, 3]
    assert Image.open(run / "fidelity.png").size[0] > 500
    assert "single steps nearest to full: step" in said
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/runs/mlflow.db")
    [tracked] = client.search_runs([client.get_experiment_by_name("sdo-ray").experiment_id])
    assert tracked.data.metrics["fidelity/refl/cosine"] == pytest.approx(refl["cosine"])
    assert {file.path for file in client.list_artifacts(tracked.info.run_id, "outcome")} == {
        "outcome/fidelity.json",
        "outcome/fidelity.png",
    }

    again = command(path)
    assert "tiny is complete; its numbers:" in again
    assert again.split("plan  ")[1] == said.split("plan  ")[1]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"fidelity": {"plans": [{"name": "full"}]}}, "fidelity.plans.0: `full` is what the others are compared with"),
        (
            {"fidelity": {"plans": [{"name": "group", "options": {"kl": 0.1}}]}},
            "fidelity.plans.0: 'group' with these options learns by other policies' weights",
        ),
        ({"fidelity": {"plans": [{"name": "refl"}, {"name": "refl"}]}}, "fidelity.plans.1: 'refl' with these options"),
        ({"fidelity": {"plans": [{"name": "sdo", "options": {"K": 9}}]}}, "fidelity.plans.0.options.K: got 9"),
        ({"fidelity": {"plans": [{"name": "sdoo"}]}}, "fidelity.plans.0.name: got 'sdoo'"),
        ({"fidelity": {"batches": 3}}, "fidelity.batches: got 3, of samplers.batch_size = 2 prompts, 6 in all"),
        ({"fidelity": {"batches": 1}}, "fidelity.batches: got 1"),
        ({"fidelity": {"drawz": 2}}, "fidelity.drawz: unknown setting"),
        ({"prompts": {"train": "nowhere.parquet"}}, "prompts.train:"),
        ({"rewards": {"terms": [{"name": "jpeg_compressibility"}]}}, "rewards.terms.0: "),
        (
            {"rewards": {"terms": [{"name": "layout", "options": {"towards": "up"}}]}},
            "rewards.terms.0.options.towards: ",
        ),
        ({"model": {"base": "zoo://emojis"}}, "model.base: got 'zoo://emojis'"),
        ({"model": {"lora": {"targets": ["to_x"]}}}, "model.lora.targets"),
        ({"sampling": {"options": {"heigth": 8}}}, "sampling.options:"),
        ({"sampling": {"cache": "taylor"}}, "sampling.cache: given, but `full` has exact steps"),
        ({"fidelity": {"cheap_steps": [{}]}}, "fidelity.cheap_steps.0: says nothing new"),
        ({"fidelity": {"cheap_steps": [{"cache": "pab"}]}}, "fidelity.cheap_steps.0.cache.name: got 'pab'"),
    ],
)
def test_refuses(
    sections: dict[str, Any], said: str, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(settings_file(tmp_path, tiny_base, **sections))]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
