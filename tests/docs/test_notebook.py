"""The notebook in the documentation runs as it is."""

import json
from pathlib import Path

import pytest

from tests.support.notebook import cells_of, run

FILE = Path(__file__).parents[2] / "docs/notebooks/align.ipynb"


@pytest.mark.slow
def test_it_runs_learns_and_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads(FILE.read_text())
    monkeypatch.chdir(tmp_path)
    outputs = run(cells_of(notebook))
    assert (tmp_path / "lora/pytorch_lora_weights.safetensors").is_file()
    [printed] = [
        output["text"] for cell in outputs for output in cell if "update 1: " in "".join(output.get("text", ()))
    ]
    blue = [float(line.split("blue ")[1].split()[0]) for line in printed]
    assert blue[-1] > blue[0] + 0.02
    assert any("image/png" in output.get("data", {}) for cell in outputs for output in cell)


def test_its_outputs_are_kept() -> None:
    code = [cell for cell in json.loads(FILE.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
