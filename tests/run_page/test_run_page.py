"""The page of a run that goes on."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from rewards.pulls import Pull
from sdo_ray.run_page import PAGE, RunPage
from sdo_ray.run_page import page as page_module
from sdo_ray.run_page.render import POINTS, SHOWN, render
from sdo_ray.storage import RunDirectory
from sdo_ray.training.decisions import Continue
from tests.support.evaluations import image
from tests.support.updates import report


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(tmp_path), "mine")


def text(run: RunDirectory) -> str:
    return Path(run.place(PAGE)).read_text()


def test_curves_previews_and_events(run: RunDirectory) -> None:
    with RunPage(run, 10, []) as page:
        assert "0 of 10 updates" in text(run)
        assert "No update was made yet" in text(run)
        for update in range(3):
            assert page.observe(report(update, image("red") if update == 2 else None)) == Continue()
        assert "3 of 10 updates; reward 2.500" in text(run)  # a preview is worth a new page
        page.observe(replace(report(3), failures=("CUDA out of memory",)))
        page.note(4, "it was decided to end here: budget")
    shown = text(run)
    assert 'aria-label="reward over 4 updates: from 0.500 to 3.500"' in shown
    assert 'aria-label="a over 4 updates: from 1.000 to 1.000"' in shown
    assert "<figcaption>b</figcaption>" not in shown  # it has no scores
    assert '<img src="data:image/webp;base64,' in shown
    assert "update 3</figcaption>" in shown
    assert "update 4: samples were skipped: CUDA out of memory" in shown
    assert "update 4: it was decided to end here: budget" in shown


def test_a_mix_shows_each_part_s_pull_and_how_they_agree() -> None:
    mix = {"gradient_norm": 2.0, "group_norm": 0.5, "cosine": 0.25}
    of = {"alignment": Pull(pulling=4.0, squares=36.0), "preference": Pull(pulling=1.0, squares=1.0)}
    reports = [replace(report(u), groups=mix, pulls=of, cosines={"alignment/preference": 0.5}) for u in range(2)]
    shown = render("mine", 2, reports, {}, [])
    for label, value in (
        ("groups: gradient norm", "2.000"),
        ("groups: group norm", "0.500"),
        ("groups: cosine", "0.250"),
        ("pull of alignment", "3.000"),
        ("pull of preference", "1.000"),
        ("cosine of alignment/preference", "0.500"),
    ):
        assert f'aria-label="{label} over 2 updates: from {value} to {value}"' in shown
    alone = render("mine", 1, [replace(report(0), pulls={"alignment": of["alignment"]})], {}, [])
    assert "pull of" not in alone


def test_a_resumed_run_shows_what_was_before(run: RunDirectory) -> None:
    with RunPage(run, 10, []) as page:
        page.observe(report(0, image("red")))
        page.observe(report(1))
    with RunPage(run, 10, [report(0), report(1)]) as page:
        page.observe(report(2, image("blue")))
    assert text(run).count("<img ") == 2
    assert "reward over 3 updates" in text(run)


def test_how_it_ended_is_there_without_secrets(run: RunDirectory) -> None:
    with pytest.raises(RuntimeError), RunPage(run, 10, [report(0)]):
        raise RuntimeError("no answer from https://ann:hunter2@db")
    assert "update 1: it ended with RuntimeError: no answer from" in text(run)
    assert "hunter2" not in text(run)


def test_it_is_not_written_at_every_update(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 59.0, 60.0, 60.0, 61.0])
    monkeypatch.setattr(page_module, "monotonic", lambda: next(clock))
    page = RunPage(run, 10, [])
    page.write()
    seen = []
    for update in range(3):
        page.observe(report(update))
        seen += re.findall(r"(\d+) of 10 updates", text(run))
    assert seen == ["0", "0", "3"]


def test_a_storage_that_is_away_stops_nothing(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(run.path) / PAGE).mkdir(parents=True)
    with RunPage(run, 2, []) as page:
        page.observe(report(0))
    assert "run.html could not be written" in capsys.readouterr().out


def test_what_others_wrote_is_text() -> None:
    attack = "<script>alert(1)</script>"
    shown = render(attack, 2, [replace(report(0), scores={attack: report(0).reward})], {}, [(1, attack)])
    assert "<script" not in shown
    assert "default-src 'none'" in shown


def test_a_long_run_makes_no_large_page() -> None:
    reports, sheet = [report(update) for update in range(3000)], image("red")
    shown = render("mine", 3000, reports, dict.fromkeys(range(1, 3000, 10), sheet), [(1, "x")] * 1000)
    assert shown.count("<img ") == SHOWN
    points, *_ = re.findall(r'class="curve candidate" points="([^"]*)"', shown)
    assert POINTS // 2 < len(points.split()) <= POINTS + 2
    assert "update 2991<" in shown
    assert "update 1<" in shown
    assert len(shown) < 1e6
