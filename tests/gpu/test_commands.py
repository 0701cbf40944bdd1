"""The commands whose work runs in Ray actors, and `sdo sample`, with their models and rewards on one GPU."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from pipelines.sample import main as sample
from tests.pipelines.test_evaluate import evaluate_settings
from tests.pipelines.test_fidelity import settings_file as fidelity_settings
from tests.pipelines.test_optimize import tiny_settings as optimize_settings
from tests.support.runs import AlignProcess

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


def on_gpu(path: Path) -> str:
    """The settings with everything on a share of one GPU."""
    settings: dict[str, Any] = yaml.safe_load(path.read_text())
    settings["samplers"] |= {"count": 1, "num_gpus": 0.3}
    rewards = settings["rewards"] if isinstance(settings["rewards"], list) else settings["rewards"]["terms"]
    for reward in rewards:
        if reward["name"] != "jpeg_compressibility":
            reward["num_gpus"] = 0.1
    if "features" in settings:
        settings["features"]["num_gpus"] = 0.1
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def test_evaluate(tiny_base: Path, tmp_path: Path) -> None:
    with AlignProcess(on_gpu(evaluate_settings(tmp_path, tiny_base)), command="evaluate") as run:
        run.finish()
    assert pq.read_table(tmp_path / "runs/compare/pictures.parquet").num_rows == 10


def test_optimize(tiny_base: Path, tmp_path: Path) -> None:
    with AlignProcess(on_gpu(optimize_settings(tmp_path, tiny_base)), command="optimize") as run:
        run.finish()
    assert pq.read_table(tmp_path / "runs/tiny/rows.parquet").num_rows == 6


def test_fidelity(tiny_base: Path, tmp_path: Path) -> None:
    with AlignProcess(on_gpu(fidelity_settings(tmp_path, tiny_base)), command="fidelity") as run:
        run.finish()
    assert (tmp_path / "runs/tiny/fidelity.json").exists()


def test_sample(tiny_base: Path, tmp_path: Path) -> None:
    given = ["--model", str(tiny_base), "--prompt", "a", "--steps", "2", "--seed", "3"]
    for device in ("cuda", "cpu"):
        assert sample([*given, "--device", device, "--out", str(tmp_path / f"{device}.png")]) == 0
    here, there = (Image.open(tmp_path / f"{device}.png").convert("RGB") for device in ("cuda", "cpu"))
    furthest = max(abs(a - b) for a, b in zip(here.tobytes(), there.tobytes(), strict=True))
    assert furthest <= 2
