"""Which prompts are asked, under which noise."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdo_ray.prompts.heldout import check_apart, draw_questions, read_heldout
from sdo_ray.settings import SettingsError

PROMPTS = [f"prompt {i}" for i in range(10)]
CATEGORIES = ["even" if i % 2 == 0 else None for i in range(10)]


@pytest.fixture
def file(tmp_path: Path) -> str:
    table = {"prompt": PROMPTS, "category": CATEGORIES, "kind": CATEGORIES, "number": list(range(10))}
    pq.write_table(pa.table(table), tmp_path / "prompts.parquet")
    return str(tmp_path / "prompts.parquet")


def test_a_seed_draws_the_same_prompts_in_the_same_order_whatever_else_is_asked(file: str) -> None:
    prompts = read_heldout(file, "prompt")
    one = draw_questions(prompts, 6, 3)
    three = draw_questions(prompts, 6, 3, images_per_prompt=3)
    # As the last version drew them.
    assert one["prompt"].to_pylist() == [PROMPTS[i] for i in np.random.default_rng(3).permutation(10)[:6]]
    assert one["index"].to_pylist() == list(range(6))
    assert three.slice(0, 6).equals(one)
    assert three["prompt"].to_pylist() == 3 * one["prompt"].to_pylist()
    assert three["index"].to_pylist() == list(range(18))
    assert draw_questions(prompts, 6, 4)["prompt"].to_pylist() != one["prompt"].to_pylist()


@pytest.mark.parametrize("category", ["category", "kind"])
def test_categories_stay_with_their_prompts(file: str, category: str) -> None:
    rows = draw_questions(read_heldout(file, "prompt", category), 10, 1).to_pylist()
    assert len(rows) == 10
    assert all((row["category"] == "even") == (int(row["prompt"][-1]) % 2 == 0) for row in rows)


def test_there_need_be_no_categories(file: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": PROMPTS}), tmp_path / "plain.parquet")
    for table in (read_heldout(str(tmp_path / "plain.parquet"), "prompt", "category"), read_heldout(file, "prompt")):
        questions = draw_questions(table, 2, 0)
        assert questions["category"].to_pylist() == [None, None]
        assert questions.schema.equals(pa.schema({"index": pa.int64(), "prompt": pa.string(), "category": pa.string()}))


def test_refuses(file: str) -> None:
    with pytest.raises(SettingsError, match="got 11, but the file has 10 prompts; ask for at most that many"):
        draw_questions(read_heldout(file, "prompt"), 11, 0)
    with pytest.raises(SettingsError, match="has no column 'colour'; it has prompt, category, kind, number"):
        read_heldout(file, "prompt", "colour", category_needed=True)
    with pytest.raises(SettingsError, match="column 'number' holds int64; it takes text"):
        read_heldout(file, "prompt", "number")


def test_held_out_is_what_is_not_learned_from(file: str) -> None:
    heldout = read_heldout(file, "prompt")
    check_apart(["prompt", "prompt 10", "prompt1", "1 prompt"], heldout)
    with pytest.raises(
        SettingsError, match=r"2 of 10 prompts are also trained on, such as 'prompt 1'; .*; remove them"
    ):
        check_apart(["a", "Prompt  1\n", "prompt 7", "prompt 7"], heldout)
