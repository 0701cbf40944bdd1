"""Which prompts are asked, under which noise."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdo_ray.evaluation.images import choose_prompts
from sdo_ray.evaluation.questions import read_questions
from sdo_ray.evaluation.settings import HeldoutSettings
from sdo_ray.settings import SettingsError

PROMPTS = [f"prompt {i}" for i in range(10)]


@pytest.fixture
def file(tmp_path: Path) -> str:
    categories = ["even" if i % 2 == 0 else None for i in range(10)]
    table = {"prompt": PROMPTS, "category": categories, "kind": categories, "number": list(range(10))}
    pq.write_table(pa.table(table), tmp_path / "prompts.parquet")
    return str(tmp_path / "prompts.parquet")


def test_the_first_images_are_those_of_an_alignment_run_s_comparison(file: str) -> None:
    one = read_questions(HeldoutSettings(heldout=file, num_prompts=6), seed=3)
    three = read_questions(HeldoutSettings(heldout=file, num_prompts=6, images_per_prompt=3), seed=3)
    assert one["prompt"].to_pylist() == choose_prompts(PROMPTS, 6, seed=3)
    assert one["index"].to_pylist() == list(range(6))
    assert three.slice(0, 6).equals(one)
    assert three["prompt"].to_pylist() == 3 * one["prompt"].to_pylist()
    assert three["index"].to_pylist() == list(range(18))


def test_categories_stay_with_their_prompts(file: str) -> None:
    for settings in (HeldoutSettings(heldout=file, num_prompts=10), HeldoutSettings(heldout=file, category="kind")):
        rows = read_questions(settings.model_copy(update={"num_prompts": 10}), seed=1).to_pylist()
        assert all((row["category"] == "even") == (int(row["prompt"][-1]) % 2 == 0) for row in rows)


def test_there_need_be_no_categories(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": PROMPTS}), tmp_path / "plain.parquet")
    table = read_questions(HeldoutSettings(heldout=str(tmp_path / "plain.parquet"), num_prompts=2), seed=0)
    assert table["category"].to_pylist() == [None, None]
    assert table.schema.field("category").type == pa.string()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"heldout": "nowhere"}, r"prompts\.heldout: 'nowhere' does not exist"),
        ({"num_prompts": 11}, r"prompts\.num_prompts: got 11, but .* has 10 prompts"),
        ({"category": "colour"}, r"prompts\.heldout: .* has no column 'colour'; it has prompt, category, kind, number"),
        ({"category": "number"}, r"prompts\.heldout: .* column 'number' holds int64; categories are text"),
    ],
)
def test_refuses(file: str, changes: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_questions(HeldoutSettings.model_validate({"heldout": file, "num_prompts": 4} | changes), seed=0)
