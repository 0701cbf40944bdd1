"""The page that says which cheap steps apply to which pipeline says what is so."""

from pathlib import Path

import pytest

from tests.backprop.matrix.cases import CASES, REFUSED
from tests.cheap_steps.presets import NO, YES, earlier, page, row

PAGE = Path(__file__).parents[2] / "docs/cheap-steps-pipelines.md"
ROWS = earlier(PAGE)
# A UNet, transformers of guidance in one batch and in two calls, one of sound, and one that changes its processors.
QUICK = ("AceStep", "Flux", "StableDiffusion", "Wan")


def test_the_page_is_as_it_is_written() -> None:
    assert PAGE.read_text() == page(ROWS)
    assert ROWS.keys() == set(CASES) - set(REFUSED)


def test_any_pipeline_takes_a_continued_output() -> None:
    # But one that looks at what its denoiser's attention did.
    assert {name for name, answers in ROWS.items() if answers[0] != YES} == {"StableDiffusionSAG"}


def test_what_is_for_unets_is_for_no_transformer() -> None:
    assert ROWS["Flux"][3:5] == [NO, NO]
    assert ROWS["StableDiffusion"][3:5] == [YES, YES]


@pytest.mark.parametrize("name", QUICK)
def test_some(name: str) -> None:
    assert row(name) == ROWS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ROWS.keys() - set(QUICK)))
def test_all_others(name: str) -> None:
    assert row(name) == ROWS[name]
