"""`sdo schedule`: the real command on a tiny model, what it leaves, that it goes on, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from pipelines.schedule import main
from sdo_ray.config.loading import load_settings
from sdo_ray.rollout.settings import SamplingSettings
from tests.support.runs import AlignProcess


def settings_file(directory: Path, base: Path, **sections: dict[str, Any]) -> Path:
    pq.write_table(pa.table({"prompt": list("abcdefgh")}), directory / "prompts.parquet")
    settings: dict[str, Any] = {
        "run": {"name": "tiny", "storage": str(directory / "runs"), "seed": 3},
        "model": {"base": str(base), "lora": {"rank": 2, "alpha": 4.0, "targets": ["to_q", "to_v"]}},
        "prompts": {"train": "prompts.parquet"},
        "sampling": {"num_inference_steps": 6, "guidance_scale": 2.0, "fast_copy": "bfloat16"},
        "rewards": {"terms": [{"name": "tests.support.ink:Redness"}]},
        "samplers": {"count": 2, "batch_size": 2},
        "search": {
            "holds": ["taylor", "deepcache"],
            "population": 4,
            "generations": 2,
            "check_steps": [9],
            "shown": 3,
        },
    }
    for section, changes in sections.items():
        settings[section] |= changes
    path = directory / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def command(path: Path) -> str:
    with AlignProcess(str(path), command="schedule") as run:
        return run.finish()


@pytest.mark.slow
def test_what_it_finds_is_what_settings_take(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = settings_file(tmp_path, tiny_base)
    said, run = command(path), tmp_path / "runs" / "tiny"
    candidates = pq.read_table(run / "candidates.parquet").to_pylist()
    assert [one["generation"] for one in candidates] == [0] * 4 + [1] * 4
    found = json.loads((run / "schedule.json").read_text())
    assert [one["name"] for one in found] == pq.read_table(run / "schedule.parquet")["name"].to_pylist()
    assert any(one["searched"] for one in found)
    for one in found:
        assert one["cost"] > 0
        assert 0 < one["error"] < 1
        assert -1 <= one["cosine"] <= 1
        assert one["other_steps"].keys() == {"9"}
    assert Image.open(run / "schedule.png").size[0] > 500
    page = (run / "schedule.html").read_text()
    assert all(one["name"] in page for one in found)

    taken = tmp_path / "sampling.yaml"
    taken.write_text(yaml.safe_dump({"cache": {"schedule": str(run / "schedule.yaml"), "cost": 100.0}}))
    best = min((one for one in found if one["best"]), key=lambda one: one["error"])
    cache = load_settings(SamplingSettings, taken).cache
    assert cache is not None
    assert cache.model_dump(exclude_defaults=True) == best["cache"]

    again = command(path)
    assert "tiny is complete" in again
    assert again.split("  steps ")[1] == said.split("  steps ")[1]

    # Stopped before its end, it measures what is missing and comes to the same candidates.
    (run / "schedule.json").unlink()
    pq.write_table(pa.Table.from_pylist(candidates[:5]), run / "candidates.parquet")
    command(path)
    resumed = pq.read_table(run / "candidates.parquet").to_pylist()
    assert [(one["steps"], one["error"]) for one in resumed] == [(one["steps"], one["error"]) for one in candidates]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"sampling": {"cache": "taylor"}}, "sampling.cache: given, but which steps are computed is what is searched"),
        ({"sampling": {"num_inference_steps": 2}}, "sampling.num_inference_steps: got 2"),
        ({"search": {"holds": ["pab"]}}, "holds has 'pab', which is diffusers' own"),
        ({"search": {"holds": [{"name": "taylor", "every": 2}]}}, "holds has a schedule or an order"),
        ({"search": {"orders": [4]}}, "orders has [4]"),
        ({"search": {"batches": 4}}, "search.batches: 4 batches to search on and 2 others of 2 prompts are 12"),
        ({"search": {"plan": {"name": "sdo", "options": {"K": 9}}}}, "search.plan.options.K: got 9"),
        ({"search": {"compare": "picture"}}, "search.compare"),
        ({"model": {"base": "zoo://emojis"}}, "model.base: got 'zoo://emojis'"),
        ({"rewards": {"terms": [{"name": "jpeg_compressibility"}]}}, "rewards.terms.0: "),
    ],
)
def test_refuses(
    sections: dict[str, Any], said: str, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(settings_file(tmp_path, tiny_base, **sections))]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_comparing_by_rewards_needs_some(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = settings_file(tmp_path, tiny_base, search={"compare": "gradient"})
    assert main([str(path), "--set", "rewards=null"]) == 2
    assert "search.compare: got 'gradient', and there are no rewards" in capsys.readouterr().err
