"""What rows give the pipeline besides their prompts."""

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdo_ray.prompts.inputs import _beside, as_column, call_arguments, from_column, read_inputs
from sdo_ray.prompts.read import read_prompts
from sdo_ray.prompts.schedule import schedule
from sdo_ray.rollout.records import PromptBatch
from sdo_ray.rollout.settings import SamplingSettings
from sdo_ray.settings import SettingsError

INPUTS = {"image": "source", "strength": "much", "prompt_2": "other", "audio": "sound"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    lines = ["prompt,source,much,other,sound"]
    for number, prompt in enumerate("abc"):
        Image.new("RGB", (4, 6), (number, 0, 0)).save(tmp_path / f"pictures/{prompt}.png")
        with wave.open(str(tmp_path / f"{prompt}.wav"), "wb") as sound:
            sound.setnchannels(2)
            sound.setsampwidth(2)
            sound.setframerate(100)
            sound.writeframes(np.array([[number, -(2**15)]] * 5, np.int16).tobytes())
        lines.append(f"{prompt},pictures/{prompt}.png,0.5,with {prompt},{tmp_path}/{prompt}.wav")
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    return tmp_path / "rows.csv"


def read(file: Path, **changes: Any) -> list[Any]:
    return read_inputs(str(file), "prompt", INPUTS, **changes)


def test_rows_become_what_a_call_takes(file: Path) -> None:
    rows = read(file, batch_size=3)
    assert len(rows) == len(read_prompts(str(file)))
    given = call_arguments(rows[1:])
    assert [image.getpixel((0, 0)) for image in given["image"]] == [(1, 0, 0), (2, 0, 0)]
    assert given["strength"] == 0.5
    assert given["prompt_2"] == ["with b", "with c"]
    assert given["audio"].shape == (2, 2, 5)
    torch.testing.assert_close(given["audio"][:, :, 0], torch.tensor([[1 / 2**15, -1.0], [2 / 2**15, -1.0]]))
    assert from_column(as_column(rows).to_pylist()) == rows
    assert call_arguments([]) == {}


def test_they_go_with_their_prompts(file: Path) -> None:
    rows = read(file)
    prompts = read_prompts(str(file))
    blocks = schedule(prompts, seed=1, batch_size=2, sampler_batch_size=2, start=0, stop=3, inputs=rows)
    batches = [PromptBatch.from_arrow(block) for block in blocks]
    assert len({batch.prompts for batch in batches}) > 1
    for batch in batches:
        assert [row["prompt_2"] for row in batch.inputs] == [f"with {prompt}" for prompt in batch.prompts]
        assert [part.inputs for part in batch.parts(1)] == [(row,) for row in batch.inputs]
    [plain] = schedule(prompts, seed=1, batch_size=2, sampler_batch_size=2, start=0, stop=1)
    assert plain.column_names == ["update", "rows", "prompts"]
    assert PromptBatch.from_arrow(plain).inputs == ()


def test_a_call_without_any_has_those_of_the_example(file: Path) -> None:
    rows = read(file)
    sampling = SamplingSettings().with_example_of(rows[2:])
    assert sampling.pipeline_call(["x", "y"])["prompt_2"] == ["with c"] * 2
    assert sampling.model_copy(update={"num_inference_steps": 3}).pipeline_call(["x"])["prompt_2"] == ["with c"]
    assert sampling.pipeline_call(["x"], rows[:1])["prompt_2"] == ["with a"]
    assert "prompt_2" not in SamplingSettings().pipeline_call(["x"])
    assert sampling.to_dict() == SamplingSettings().to_dict()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("c,pictures/c.png", "c,pictures/d.png", "pictures/d.png' cannot be read"),
        ("c,pictures/c.png", "c,none", "column 'source' has files and 'none'"),
        ("0.5,with c", "0.7,with c", "'much' has 2 numbers, and another strength .* give all rows the same one"),
        ("with c", "", "no text in column 'other'"),
        (",sound", ",noise", "has no column 'sound'"),
    ],
)
def test_what_cannot_be_is_said(file: Path, old: str, new: str, said: str) -> None:
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(SettingsError, match=said):
        read(file, batch_size=2)


def test_other_sizes_and_numbers_take_calls_of_their_own(file: Path) -> None:
    Image.new("RGB", (4, 4)).save(file.parent / "pictures/b.png")
    with pytest.raises(SettingsError, match=r"column 'source' has 2 numbers or sizes.* choose samplers\.batch_size: 1"):
        read(file, batch_size=2)
    assert len(read(file, batch_size=1)) == 3


@pytest.mark.parametrize(
    ("prompts", "image"),
    [
        ("a.csv", "./x/1.png"),
        ("/data/a.csv", "/data/x/1.png"),
        ("/data/folder", "/data/folder/x/1.png"),
        ("s3://bucket/a.csv?region=eu-west-1", "s3://bucket/x/1.png?region=eu-west-1"),
        ("s3://b/p?endpoint_override=http://minio:9000", "s3://b/p/x/1.png?endpoint_override=http://minio:9000"),
    ],
)
def test_files_are_beside_their_prompts(prompts: str, image: str) -> None:
    assert _beside(prompts, "x/1.png") == image
    assert _beside(prompts, "s3://other/1.png") == "s3://other/1.png"
