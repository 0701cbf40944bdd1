"""Raw prompts become clean ones, and a prompt's side is its own."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sdo_ray.prompts.clean import Prompt, clean, identity, normalise
from sdo_ray.prompts.prepare import DROPPED, prepare
from sdo_ray.prompts.settings import PreparationSettings
from sdo_ray.prompts.split import is_heldout
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory


def kept_and_dropped(*texts: str | None, **settings: object) -> tuple[list[str], dict[str | None, str]]:
    prompts = [Prompt(row, text) for row, text in enumerate(texts)]
    kept, dropped = clean(prompts, PreparationSettings(source="-", **settings))
    assert len(kept) + len(dropped) == len(texts)
    return [prompt.text or "" for prompt in kept], {one.text: one.reason for one in dropped}


def test_one_spelling() -> None:
    assert normalise(" a\u00a0red\t\napple\x00 ") == "a red apple"
    assert normalise("cafe\u0301") == "café"
    assert normalise("👩\u200d🚀") == "👩\u200d🚀"
    assert normalise("می\u200cخواهم") == "می\u200cخواهم"
    assert normalise("straw\u00adberry \u200bpie\ufeff") == "strawberry pie"


def test_what_is_dropped_and_why() -> None:
    kept, dropped = kept_and_dropped(
        "red apple", "", None, "Apple,  RED", "one", "one two three four", "naked cat", "the nakedness of it",
        min_words=2, max_words=3, blocked=["naked"], duplicates="words",
    )  # fmt: skip
    assert kept == ["red apple"]
    assert dropped == {
        "": "empty", None: "empty", "Apple,  RED": "duplicate", "one": "too short",
        "one two three four": "too long", "naked cat": "blocked", "the nakedness of it": "too long",
    }  # fmt: skip


def test_blocked_are_whole_words_and_phrases() -> None:
    kept, dropped = kept_and_dropped(
        "a (Nude) man", "denuded hills", "bare  skin", "bareskin", blocked=["nude", "bare skin"]
    )
    assert kept == ["denuded hills", "bareskin"]
    assert list(dropped.values()) == ["blocked", "blocked"]


@pytest.mark.parametrize(
    "prompt",
    [
        *("nudes", "a nude_woman", "nude2", "NUDE", "n\u00fcde", "two nu\u0301des"),
        *(
            "\uff4e\uff55\uff44\uff45 art",
            "nu\u200bde",
            "nu\u00adde",
            "\U0001d427\U0001d42e\U0001d41d\U0001d41e",
            "nud\u0435",
        ),
        *("一幅裸体画", "bare-skin", "BARE\u3000SKIN"),
    ],
)
def test_blocked_however_it_is_written(prompt: str) -> None:
    assert kept_and_dropped(prompt, blocked=["nude", "裸", "bare skin"]) == ([], {prompt: "blocked"})


@pytest.mark.parametrize("prompt", ["denuded hills", "Nudelsuppe", "a bear with skin", "衣服", "nudeness"])
def test_what_is_another_word_is_not_blocked(prompt: str) -> None:
    assert kept_and_dropped(prompt, blocked=["nude", "裸", "bare skin", ""]) == ([prompt], {})


def test_a_long_word_is_too_long() -> None:
    for text in ("x" * 100_000, "图" * 5_000):
        assert kept_and_dropped(text) == ([], {text: "too long"})
    assert kept_and_dropped("x" * 1000)[1] == {}


def test_word_order_matters_to_some() -> None:
    for pair in (
        ("a red cube on a blue sphere", "a blue cube on a red sphere"),
        ("a dog left of a cat", "a cat left of a dog"),
        ("C++ logo", "C logo"),
    ):
        assert kept_and_dropped(*pair)[0] == list(pair)
    assert kept_and_dropped("a  red Cube", "A red cube")[0] == ["a red Cube"]
    assert kept_and_dropped("dog bites man", "man bites dog", duplicates="words")[0] == ["dog bites man"]
    assert identity("🍎", "words") != identity("🍐", "words")


def test_a_prompt_keeps_its_side() -> None:
    texts = [f"a cat number {i}" for i in range(2000)]
    heldout = {text for text in texts if is_heldout(text, 0.1, "words")}
    assert 150 < len(heldout) < 250
    # A larger share only adds, and duplicates are never on the other side.
    assert heldout < {text for text in texts if is_heldout(text, 0.2, "words")}
    assert all(is_heldout(" ".join(reversed(text.upper().split())), 0.1, "words") for text in heldout)


def test_files_and_counts(tmp_path: Path) -> None:
    source = tmp_path / "raw.txt"
    source.write_text("\n".join([*(f"thing {i}" for i in range(100)), "thing 5", ""]) + "\n")
    settings = PreparationSettings(source=str(source), heldout=0.3)
    run = RunDirectory(str(tmp_path), "run")
    made = prepare(settings, run)
    train, heldout = (pq.read_table(place).column("prompt").to_pylist() for place in (made.train, made.heldout))
    assert sorted(train + heldout) == sorted(f"thing {i}" for i in range(100))
    assert (made.read, made.num_train, made.num_heldout) == (102, len(train), len(heldout))
    assert made.dropped == {"duplicate": 1, "empty": 1}
    assert pq.read_table(tmp_path / "run" / DROPPED).to_pylist() == [
        {"row": 100, "prompt": "thing 5", "reason": "duplicate"},
        {"row": 101, "prompt": "", "reason": "empty"},
    ]
    source.write_text("gone")
    assert prepare(settings, run) == made


def test_what_is_held_out_elsewhere_is_dropped(tmp_path: Path) -> None:
    source, elsewhere = tmp_path / "raw.txt", tmp_path / "benchmark.jsonl"
    source.write_text("".join(f"thing {i}\n" for i in range(40)))
    elsewhere.write_text('{"prompt": "Thing  7"}\n{"prompt": "a sphinx"}\n')
    settings = PreparationSettings(source=str(source), heldout=0.3, apart_from=str(elsewhere))
    made = prepare(settings, RunDirectory(str(tmp_path), "run"))
    assert made.dropped == {"held out": 1}
    assert all("thing 7" not in pq.read_table(place)["prompt"].to_pylist() for place in (made.train, made.heldout))


def test_a_prompt_keeps_its_row_and_its_category(tmp_path: Path) -> None:
    source = tmp_path / "raw.csv"
    source.write_text("kind,text\n" + "".join(f"{'even' if i % 2 == 0 else ''},thing {i}\n" for i in range(40)))
    settings = PreparationSettings(source=str(source), column="text", category="kind", heldout=0.3)
    made = prepare(settings, RunDirectory(str(tmp_path), "run"))
    rows = [row for place in (made.train, made.heldout) for row in pq.read_table(place).to_pylist()]
    assert sorted(row["row"] for row in rows) == list(range(40))
    assert all(row["prompt"] == f"thing {row['row']}" for row in rows)
    assert all(row["category"] == ("even" if row["row"] % 2 == 0 else None) for row in rows)


@pytest.mark.parametrize(
    ("name", "content", "settings", "said"),
    [
        ("a.txt", None, {}, "does not exist"),
        ("a.parquet", "no parquet", {}, "cannot be read as parquet"),
        ("a.csv", "text\nred apple\n", {}, "source: .* has no column 'prompt'; it has text"),
        ("a.csv", "prompt\nred apple\n", {"category": "kind"}, "source: .* has no column 'kind'"),
        ("a.jsonl", '{"prompt": 3}', {}, "source: .* row 0, from 0: 'prompt' is a number; it takes a text"),
        ("a.txt", "one\ntwo\n", {}, "heldout: .* each side takes 2 or more"),
        ("a.txt", "one\ntwo\n", {"apart_from": "nowhere.csv"}, "apart_from: 'nowhere.csv' does not exist"),
    ],
)
def test_bad_sources(tmp_path: Path, name: str, content: str | None, settings: dict, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(SettingsError, match=said):
        prepare(PreparationSettings(source=str(tmp_path / name), **settings), RunDirectory(str(tmp_path), "run"))


def test_impossible_lengths() -> None:
    with pytest.raises(ValueError, match="no prompt is both"):
        PreparationSettings(source="-", min_words=5, max_words=3)
