"""The page as a file."""

import base64
import hashlib
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pyarrow as pa
import pytest
from PIL import Image

from tests.evaluation.report.pages import EVIL, harmless, hostile, page
from tests.support.evaluations import image, made_up


class Page(HTMLParser):
    """Elements, texts, and what is in the scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        self.raw.get(self._inside, self.texts).append(data)

    @property
    def data(self) -> dict[str, list[dict[str, object]]]:
        return json.loads(self.raw["script"][0])

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def good() -> Page:
    return Page(page(harmless(champion=True)))


def test_everything_is_in_it(good: Page) -> None:
    text = " ".join(" ".join(good.texts).split())
    for said in (
        "12 held-out prompts, 12 images of each model",
        "models/candidate",
        "1 reward not trained on, candidate against base: ",
        "the first 12 of 12 pairs",
        "Fréchet distances from 12 images of each model are biased upwards",
        "The candidate's training",
        "version.torch",
        "name: made-up",
    ):
        assert said in text, said
    assert len(good.all("img")) == 36
    assert good.data["roles"] == ["base", "candidate", "champion"]


def test_needs_nothing_from_anywhere(good: Page) -> None:
    for tag, attributes in good.elements:
        for name in ("src", "href", "action", "srcset", "poster", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    assert not re.search(r"@import|url\(", "".join(good.raw["style"]))
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|innerHTML|eval\(", "".join(good.raw["script"][1:]))


@pytest.mark.parametrize("evaluation", [harmless(), hostile()], ids=["harmless", "hostile"])
def test_only_its_own_script_and_style_may_run(evaluation) -> None:
    html = page(evaluation)
    it = Page(html)
    assert len(it.all("script")) == 2
    assert it.all("script")[0]["type"] == "application/json"
    (policy,) = [meta["content"] for meta in it.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    for directive, (content,) in (("script-src", it.raw["script"][1:]), ("style-src", it.raw["style"])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag, attributes in it.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)


def test_attacks_are_text() -> None:
    it = Page(page(hostile()))
    tags = {tag for tag, _ in it.elements}
    assert tags <= {tag for tag, _ in Page(page(harmless(champion=True))).elements}
    assert len(it.all("img")) == 3 * len(EVIL)
    assert all((tag["src"] or "").startswith("data:image/webp;base64,") for tag in it.all("img"))
    assert [point["prompt"] for point in it.data["points"]] == list(EVIL)
    text = "".join(it.texts)
    for evil in EVIL:
        assert evil.replace("`", "") in text, evil
    assert "49" not in text.replace("2.49", "")


def test_no_more_rows_than_asked_for_and_it_says_so() -> None:
    it = Page(page(harmless(12), rows=5))
    assert len(it.all("img")) == 10
    assert len(it.data["rows"]) == 5
    assert len(it.data["points"]) == 12
    assert "the first 5 of 12 pairs" in " ".join(it.texts)


def test_large_images_are_scaled_and_small_ones_kept_to_the_bit() -> None:
    evaluation = harmless(2)
    columns = {name: evaluation.images[name] for name in evaluation.images.column_names}
    buffer = io.BytesIO()
    Image.effect_noise((600, 300), 90).convert("RGB").save(buffer, format="PNG")
    columns["candidate.picture"] = pa.array([buffer.getvalue()] * 2)
    it = Page(page(replace(evaluation, images=pa.table(columns)), image_size=200))
    small, large, *_ = (Image.open(io.BytesIO(base64.b64decode(tag["src"].partition(",")[2]))) for tag in it.all("img"))
    assert large.size == (200, 100)
    assert small.convert("RGB").tobytes() == Image.open(io.BytesIO(image("gray"))).tobytes()


def test_scores_that_are_not_finite_are_null() -> None:
    it = Page(page(made_up(list("abc"), quality=[1.0, math.nan, math.inf])))
    assert [row["candidate"] for row in it.data["rows"]] == [[1.0], [None], [None]]


def test_one_prompt_without_category_training_or_details() -> None:
    it = Page(page(made_up(["a", "a"], quality=[1.0, 2.0])))
    text = " ".join(" ".join(it.texts).split())
    assert "too few prompts" in text
    assert "The candidate's training" not in text
    assert not [select for select in it.all("select") if select.get("id") in ("category", "numbers-category")]


def test_size_is_bounded() -> None:
    evaluation = harmless(300)
    assert len(page(evaluation)) < 500_000
