"""One reader for every file that prompts come in."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdo_ray.prompts.read import read_columns, read_prompts, read_texts
from sdo_ray.settings import SettingsError

ROWS: list[dict[str, Any]] = [
    {"prompt": "a red apple", "target": "an apple", "kind": "food"},
    {"prompt": 'ein "großer" Käse, gelb', "target": "1", "kind": None},
    {"prompt": "two\nlines", "target": "null", "kind": "食べ物"},
    {"prompt": "2024-01-01", "target": "🍎", "kind": ""},
]


def encode(ending: str) -> bytes:
    """`ROWS` in a format; of txt, the prompts that have one line."""
    match ending:
        case "csv" | "tsv":
            text = io.StringIO()
            writer = csv.DictWriter(text, list(ROWS[0]), delimiter="," if ending == "csv" else "\t")
            writer.writeheader()
            writer.writerows(ROWS)
            return text.getvalue().encode()
        case "json":
            return json.dumps(ROWS).encode()
        case "jsonl":
            return "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer)
    return buffer.getvalue()


def write(path: Path, content: bytes | str) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


@pytest.mark.parametrize("as_uri", [False, True])
@pytest.mark.parametrize(
    "ending", ["parquet", "csv", "csv.gz", "TSV", "tsv.gz", "json", "json.gz", "jsonl", "jsonl.gz"]
)
def test_every_format_says_the_same(tmp_path: Path, ending: str, as_uri: bool) -> None:
    content = encode(ending.lower().removesuffix(".gz"))
    path = write(tmp_path / f"prompts.{ending}", gzip.compress(content) if ending.endswith(".gz") else content)
    path = f"file://{path}" if as_uri else path
    table = read_texts(path, ["prompt", "target"], labels=["kind"], optional=["none"])
    assert table.schema.equals(pa.schema(dict.fromkeys(["prompt", "target", "kind", "none"], pa.string())))
    assert table.select(["prompt", "target"]).to_pylist() == [{k: row[k] for k in ("prompt", "target")} for row in ROWS]
    assert table["kind"].to_pylist() == ["food", None, "食べ物", None]
    assert table["none"].to_pylist() == [None] * 4
    assert read_prompts(path) == [row["prompt"] for row in ROWS]


@pytest.mark.parametrize("ending", ["txt", "txt.gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_prompt_a_line(tmp_path: Path, ending: str, newline: str) -> None:
    # What str.splitlines also takes for an end of line is part of a prompt.
    lines = ["a red apple", "", "ein Käse, \u2028 gelb", "  ", '"quoted"', ""]
    content = newline.join(lines).encode()
    path = write(tmp_path / f"prompts.{ending}", gzip.compress(content) if ending == "txt.gz" else content)
    assert read_prompts(path) == ["a red apple", "ein Käse, \u2028 gelb", '"quoted"']
    # Whoever cleans them sees every line.
    assert read_columns(path, ["prompt"])["prompt"].to_pylist() == lines[:-1]


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "txt"])
def test_a_mark_of_byte_order_is_no_text(tmp_path: Path, ending: str) -> None:
    contents = {"csv": "prompt\nx\n", "tsv": "prompt\nx\n", "json": '["x"]', "jsonl": '{"prompt": "x"}\n', "txt": "x\n"}
    assert read_prompts(write(tmp_path / f"a.{ending}", b"\xef\xbb\xbf" + contents[ending].encode())) == ["x"]


def test_empty_lines_are_no_rows(tmp_path: Path) -> None:
    assert read_prompts(write(tmp_path / "a.csv", "prompt\n\nx\n\n\ny\n\n")) == ["x", "y"]
    assert read_prompts(write(tmp_path / "a.jsonl", '\n{"prompt": "x"}\n\n{"prompt": "y"}\n \n')) == ["x", "y"]


def test_a_table_s_numbers_and_nulls_are_texts_where_a_format_has_no_types(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "number,prompt\n1,1984\n2,NA\n3,007\n4,true\n")
    assert read_prompts(path) == ["1984", "NA", "007", "true"]
    assert read_prompts(path, "number") == ["1", "2", "3", "4"]


def test_a_list_of_texts(tmp_path: Path) -> None:
    assert read_prompts(write(tmp_path / "a.json", '["x", "y"]')) == ["x", "y"]


def test_a_directory_of_files(tmp_path: Path) -> None:
    for i in range(2):
        pq.write_table(pa.table({"prompt": [f"{i}a", f"{i}b"]}), tmp_path / f"{i}.parquet")
    assert read_prompts(str(tmp_path)) == ["0a", "0b", "1a", "1b"]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())])
def test_text_that_is_stored_in_another_way(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"text": pa.array(["x", "y", "x"], pa.string()).cast(kind)}), tmp_path / "a.parquet")
    assert read_prompts(str(tmp_path / "a.parquet"), "text") == ["x", "y", "x"]


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def not_utf8() -> pa.Array:
    return pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\x00\x00\x00\x00\x02\x00\x00\x00"), pa.py_buffer(b"\xe4x")]
    )


REFUSED: dict[str, tuple[str, bytes | str | None, str]] = {
    "missing": ("a.csv", None, "a.csv' does not exist; give .csv, .tsv, .json, .jsonl, .txt, any of them also as .gz"),
    "no gzip": ("a.txt.gz", "x\n", "cannot be read as txt: "),
    "no parquet": ("a.xlsx", "x", "cannot be read as parquet: .*; give .csv, .tsv"),
    "not UTF-8 in parquet": ("a.parquet", parquet(prompt=not_utf8()), "cannot be read as parquet: .*UTF8"),
    "not UTF-8 in csv": ("a.csv", "prompt\nKäse\n".encode("latin-1"), "read as csv: .*UTF8.*; save it as UTF-8"),
    "not UTF-8 in txt": ("a.txt", "Käse\n".encode("latin-1"), "read as txt: 'utf-8' codec .*; save it as UTF-8"),
    "UTF-16": ("a.jsonl", '{"prompt": "x"}'.encode("utf-16"), "cannot be read as jsonl: 'utf-8' codec"),
    "empty csv": ("a.csv", "", "cannot be read as csv: Empty CSV file"),
    "comma without quotes": ("a.csv", "prompt\nx\ny, z\n", 'Row #3: Expected 1 columns, got 2.*in "quotes"'),
    "semicolons": ("a.csv", "prompt;kind\nx;y\n", "no column 'prompt'; it has prompt;kind.*separated by ';': save it"),
    "no header": ("a.csv", "a red apple\na cat\n", "no column 'prompt'; it has a red apple; .*the first line has"),
    "columns of one name": ("a.csv", "prompt,prompt\nx,y\n", "has 2 columns called 'prompt'; rename all but"),
    "other column of a txt": ("a.txt", "x\n", "has no column 'target'; it has prompt"),
    "no rows in csv": ("a.csv", "prompt\n", "has no rows; it takes at least one prompt"),
    "no lines": ("a.txt", "\n\n", "has no rows"),
    "a list in a list": ("a.json", '[{"prompt": "x"}, []]', "row 1, from 0, is a list, neither an object nor a text"),
    "no list": ("a.json", '{"prompt": {"0": "x"}}', "it holds an object, not a list of objects or of texts"),
    "no json": ("a.json", "[", "cannot be read as json: Expecting value: .*; make it a list of objects"),
    "deep json": ("a.json", "[" * 100_000, "cannot be read as json"),
    "no json in a line": ("a.jsonl", '{"prompt": "x"}\n\n{prompt: y}\n', "cannot be read as jsonl: line 3: Expecting"),
    "half a surrogate": ("a.jsonl", '{"prompt": "\\ud83c"}', "cannot be read as jsonl: .*surrogates"),
    "number in json": ("a.json", '[{"prompt": "x"}, {"prompt": 3}]', "row 1, from 0: 'prompt' is a number; it takes"),
    "number in parquet": ("a.parquet", parquet(prompt=[3]), "column 'prompt' holds int64; it takes text; name another"),
    "categories of numbers": ("a.parquet", parquet(prompt=pa.array([3]).dictionary_encode()), "it takes text"),
    "null": ("a.jsonl", '{"prompt": "x"}\n{"prompt": null}\n{}', r"2 of 3 rows have no text .* \(rows 1, 2, from 0\)"),
    "blank": ("a.csv", 'prompt,b\nx,1\n" ",2\n', r"1 of 2 rows have no text in column 'prompt' \(rows 1, from 0\)"),
    "many": ("a.csv", "b,prompt\n" + "1,\n" * 9, r"9 of 9 rows .* \(rows 0, 1, 2, 3, 4, \.\.\., from 0\); remove them"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(tmp_path: Path, name: str) -> None:
    file, content, said = REFUSED[name]
    path = str(tmp_path / file) if content is None else write(tmp_path / file, content)
    with pytest.raises(SettingsError, match=said) as refused:
        read_texts(path, ["target" if "other column" in name else "prompt"])
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(repr(path))


def test_two_columns_of_a_name_in_parquet(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["prompt", "prompt"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(SettingsError, match=r"cannot be read as parquet: .*duplicate field names"):
        read_prompts(str(tmp_path / "a.parquet"))
