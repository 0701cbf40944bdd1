"""The benchmarks run, in miniature, and what they count is right."""

import json
import statistics
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights

from benchmarks import models
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.estimators import main
from benchmarks.models import MODELS, BenchmarkModel
from sdo_ray.rollout.settings import PlanSettings

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("model", "nested"), [("sd15", 0.046), ("sdxl", 0.090), ("sd35-medium", 0.042)])
def test_cost_of_models_in_miniature(
    model: str,
    nested: float,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(CONTENDERS, "all", Contender(PlanSettings(name="sdo", options={"K": 6})))
    out = tmp_path / "costs.json"
    what = ["--model", model, "--size", "tiny", "--steps", "6", "--batch", "1", "--guidance", "2.0"]
    assert main(["cost", *what, "--plans", "sdo", "all", "full", "--rounds", "1", "--out", str(out)]) == 0
    plain, sdo, every, full = json.loads(out.read_text())["costs"]
    assert [cost["plan"] for cost in (plain, sdo, every, full)] == ["plain", "sdo", "all", "full"]
    assert plain["saved"] == 0
    decoder = sdo["saved_decoder"]
    assert every["saved"] - decoder == 6 * (sdo["saved"] - decoder)
    # As much, and what the nested path needs of the layers before the first adapted one.
    assert (full["saved"] - decoder) / (every["saved"] - decoder) - 1 == pytest.approx(nested, abs=0.002)
    assert statistics.median(full["seconds"]) > statistics.median(plain["seconds"])
    assert "| `full` |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "parameters"), [("sd15", 859_520_964), ("sdxl", 2_567_463_684), ("sd35-medium", 2_243_171_520)]
)
def test_models_have_their_published_sizes(model: str, parameters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_random", lambda pipeline, *_: BenchmarkModel(pipeline, lambda count: {}))
    with init_empty_weights():
        pipeline = MODELS[model]("float32", "cpu", False).pipeline
    denoiser = pipeline.components.get("unet") or pipeline.components["transformer"]
    assert sum(p.numel() for p in denoiser.parameters()) == parameters


def costs_file(directory: Path, **seconds: float) -> Path:
    path = directory / "costs.json"
    costs = [{"plan": name.replace("_", "-"), "seconds": [took, took]} for name, took in seconds.items()]
    path.write_text(json.dumps({"costs": costs}))
    return path


def test_learning_is_measured_resumed_and_shown(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.jsonl"
    size = ["--base", str(tiny_base), "--steps", "2", "--batch", "2", "--heldout", "9", "--dtype", "float32"]
    budget = ["--updates", "2", "--costs", str(costs_file(tmp_path, sdo=0.5, full=1.0)), "--rewards", "layout"]
    what = ["learn", *size, *budget, "--seeds", "1", "--out", str(out), "--sheets", str(tmp_path)]
    assert main([*what, "--plans", "sdo"]) == 0
    assert main([*what, "--plans", "sdo", "full"]) == 0
    base, sdo, full = (json.loads(line) for line in out.read_text().splitlines())
    assert [line["plan"] for line in (base, sdo, full)] == ["none", "sdo", "full"]
    # Half the time for each update, so twice as many.
    assert [point["updates"] for point in sdo["points"]] == [2, 4]
    assert [point["updates"] for point in full["points"]] == [2]
    for line in (base, sdo, full):
        assert {name: len(scores) for name, scores in line["points"][-1]["scores"].items()} == dict.fromkeys(
            ("layout", "alignment", "heldout_alignment"), 9
        )
    assert (tmp_path / "layout_sdo_0.png").stat().st_size > 0
    capsys.readouterr()
    image = tmp_path / "plot.png"
    assert main(["table", str(out), "--plot", str(image)]) == 0
    shown = capsys.readouterr().out
    assert "| `sdo` | 1 |" in shown
    assert "| `full` | 1 |" in shown
    assert image.stat().st_size > 1000
    with pytest.raises(SystemExit, match="no cost of draft; it has sdo, full"):
        main([*what, "--plans", "draft"])


def test_every_plan_learns(tiny_base: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    costs = costs_file(tmp_path, **{plan.replace("-", "_"): 1.0 for plan in CONTENDERS})
    size = ["--base", str(tiny_base), "--steps", "6", "--batch", "1", "--heldout", "2", "--dtype", "float32"]
    what = ["--updates", "1", "--costs", str(costs), "--rewards", "text", "--seeds", "1", "--out", str(out)]
    assert main(["learn", *size, *what]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["plan"] for line in lines] == ["none", *CONTENDERS]
    assert all(torch.tensor(line["points"][-1]["scores"]["heldout_alignment"]).isfinite().all() for line in lines)
