"""`sdo prepare`: whatever file the prompts are in, clean ones come out, in two files that share none."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.prepare import main
from sdo_ray.prompts.heldout import check_apart, read_heldout
from sdo_ray.prompts.read import read_prompts

TEXTS = [f"thing {i}" for i in range(40)] + ["Thing  3", ""]


def write(directory: Path, name: str) -> Path:
    """The texts in a file of this name, in a column `prompt`."""
    file = directory / name
    match name.removesuffix(".gz").rpartition(".")[2]:
        case "parquet":
            pq.write_table(pa.table({"prompt": TEXTS}), file)
            return file
        case "csv" | "tsv":
            text = "prompt\n" + "".join(f'"{text}"\n' for text in TEXTS)
        case "json":
            text = json.dumps([{"prompt": text} for text in TEXTS])
        case "jsonl":
            text = "".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS)
        case _:
            text = "".join(f"{text}\n" for text in TEXTS)
    file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return file


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.tsv.gz", "a.json", "a.jsonl.gz", "a.txt"])
def test_any_file_of_prompts_becomes_two(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "prompts"
    assert main([str(write(tmp_path, name)), "--out", str(out), "--set", "heldout=0.3"]) == 0
    train, heldout = (read_prompts(str(out / f"{side}.parquet")) for side in ("train", "heldout"))
    assert sorted(train + heldout) == sorted(TEXTS[:40])
    assert len(train) > len(heldout) > 1
    check_apart(train, read_heldout(str(out / "heldout.parquet"), "prompt", "category", category_needed=True))
    said = capsys.readouterr().out
    assert f"42 prompts read: {len(train)} to train on, {len(heldout)} to decide by; dropped: 1 duplicate, 1 e" in said
    reasons = pq.read_table(out / "dropped.parquet").to_pylist()
    assert [(row["row"], row["reason"]) for row in reasons] == [(40, "duplicate"), (41, "empty")]


def test_paths_start_where_the_command_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "a.txt")
    (tmp_path / "benchmark.csv").write_text("prompt\nthing 7\n")
    assert main(["a.txt", "--out", "made/prompts", "--set", "apart_from=benchmark.csv", "--set", "heldout=0.3"]) == 0
    assert "1 held out" in capsys.readouterr().out
    assert "thing 7" not in read_prompts("made/prompts/train.parquet") + read_prompts("made/prompts/heldout.parquet")


def test_prompts_that_a_model_reads_in_part_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("\n".join([*TEXTS[:40], "an apple" + 15 * " and another"]))
    said = []
    for model in ([], ["--model", "zoo://emoji"]):
        assert main([str(tmp_path / "a.txt"), "--out", str(tmp_path / str(len(said))), *model]) == 0
        said.append(capsys.readouterr().out)
    assert "longer" not in said[0]
    assert "are longer than the 24 tokens that the model reads" in said[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--set", "heldout=3"], "heldout: got 3 (int); input should be less than 1."),
        (["--set", "hedout=0.2"], "did you mean 'heldout'?"),
        (["--set", "column=text"], "source: 'a.txt' has no column 'text'"),
        (["--set", "min_words=3"], "each side takes 2 or more"),
        (["--model", "nowhere"], "--model: "),
        (["--out", "full"], "--out: 'full' is there, and not empty; name a new directory."),
        (["--out", "a.txt"], "--out: 'a.txt' is there"),
    ],
)
def test_refusals(changes: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "a.txt")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    assert main(["a.txt", "--out", "out", *changes]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
