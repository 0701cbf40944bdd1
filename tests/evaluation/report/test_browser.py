"""The page in a real browser: what a person does with it, and what an attacker cannot."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

from sdo_ray.evaluation.result import Evaluation
from tests.evaluation.report.pages import EVIL, harmless, hostile, page
from tests.support.browser import chromium

PHONE = {"width": 360, "height": 740}


@dataclass
class Opened:
    """A page, and what it did that it should not."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """On the console, or exceptions."""
    requests: list[str] = field(default_factory=list)
    """Whatever it asked for, other than itself."""
    refused: dict[str, str | None] = field(default_factory=dict)
    """Requests that were not made -> why."""

    def cards(self) -> list[str]:
        """Prompts of the cards that are shown, in order."""
        return self.page.locator(".card:visible .prompt").all_inner_texts()

    def scores(self) -> list[float]:
        """What the cards show, in order."""
        texts = self.page.locator(".card:visible .score").all_inner_texts()
        return [float(text.replace("−", "-")) for text in texts]

    def choose(self, control: str, option: str) -> None:
        self.page.locator(f"#{control}").select_option(option)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as it:
        yield it


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator:
    contexts = []

    def open_it(evaluation: Evaluation, viewport: dict[str, int] | None = None, **settings: int) -> Opened:
        file = tmp_path / "report.html"
        file.write_text(page(evaluation, **settings), encoding="utf-8")
        context = browser.new_context(viewport=viewport or {"width": 1280, "height": 900})
        contexts.append(context)
        it = Opened(context.new_page())
        it.page.on("console", lambda message: it.complaints.append(message.text))
        it.page.on("pageerror", lambda error: it.complaints.append(str(error)))
        it.page.on("dialog", lambda dialog: it.complaints.append(f"dialog: {dialog.message}"))
        it.page.on("request", lambda request: it.requests.append(request.url))
        it.page.on("requestfailed", lambda request: it.refused.update({request.url: request.failure}))
        it.page.goto(file.as_uri())
        it.requests = [url for url in it.requests if not url.startswith(("data:", file.as_uri()))]
        return it

    yield open_it
    for context in contexts:
        context.close()


def text_of(locator: Locator) -> str:
    return " ".join(locator.inner_text().split())


def test_sorting_changes_the_order(open_page) -> None:
    evaluation = harmless()
    it = open_page(evaluation)
    drawn = it.cards()
    assert drawn == evaluation.images["prompt"].to_pylist()
    scores = dict(zip(drawn, evaluation.images["candidate.heldout"].to_pylist(), strict=True))
    assert it.page.locator("#metric option:checked").inner_text() == "heldout"
    assert it.scores() == pytest.approx(list(scores.values()), abs=6e-4)  # the base has zeros
    it.choose("order", "high")
    assert it.cards() == sorted(drawn, key=lambda prompt: -scores[prompt])
    it.choose("order", "low")
    assert it.cards() == sorted(drawn, key=lambda prompt: scores[prompt])
    learned = dict(zip(drawn, evaluation.images["candidate.learned"].to_pylist(), strict=True))
    it.choose("metric", "0")
    assert it.cards() == sorted(drawn, key=lambda prompt: learned[prompt])
    it.choose("order", "drawn")
    assert it.cards() == drawn
    assert it.complaints == []


def test_differences_to_the_champion(open_page) -> None:
    evaluation = harmless(champion=True)
    it = open_page(evaluation)
    of_base = it.scores()
    it.choose("of", "champion")
    assert it.scores() == pytest.approx([score / 2 for score in of_base], abs=2e-3)
    it.choose("of", "")
    assert it.scores() == pytest.approx(of_base, abs=2e-3)  # the base has zeros
    assert it.page.locator(".card").first.locator("img").count() == 3


def test_filtering(open_page) -> None:
    it = open_page(harmless())
    it.choose("category", "odd")
    assert it.cards() == [f"thing {i}" for i in range(1, 12, 2)]
    assert it.page.locator("#count").inner_text() == "6 of 12"
    it.page.fill("#search", "THING 1")
    assert it.cards() == ["thing 1", "thing 11"]
    it.choose("category", "")
    assert it.cards() == ["thing 1", "thing 10", "thing 11"]
    it.page.fill("#search", "no such thing")
    assert it.cards() == []
    assert it.page.locator("#nothing").is_visible()
    it.page.fill("#search", "")
    assert len(it.cards()) == 12


def test_numbers_by_category(open_page) -> None:
    it = open_page(harmless())
    body = it.page.locator("tbody[data-category]:visible")
    assert body.count() == 1
    of_all = text_of(body)
    it.choose("numbers-category", "odd")
    assert body.count() == 1
    assert body.get_attribute("data-category") == "odd"
    assert text_of(body) != of_all


def test_enlarging_with_keys_alone(open_page) -> None:
    from playwright.sync_api import expect  # which waits until the page has seen a key

    it = open_page(harmless(champion=True))
    title, viewer = it.page.locator("#viewer-title"), it.page.locator("#viewer")
    it.choose("category", "even")
    it.page.locator(".open:visible").first.focus()
    it.page.keyboard.press("Enter")
    expect(viewer).to_be_visible()
    expect(title).to_have_text("thing 0")
    expect(viewer.locator("img")).to_have_count(3)
    assert [row.split()[0] for row in viewer.locator("tbody tr").all_inner_texts()] == [
        *("learned", "heldout", "distance_from_base")
    ]
    it.page.keyboard.press("ArrowRight")
    expect(title).to_have_text("thing 2")  # only what the filter shows
    it.page.keyboard.press("ArrowLeft")
    it.page.keyboard.press("ArrowLeft")
    expect(title).to_have_text("thing 10")
    it.page.keyboard.press("Escape")
    expect(viewer).not_to_be_visible()
    expect(it.page.get_by_label("Enlarge: thing 10")).to_be_focused()  # a dialog's `close` event comes after it is gone
    assert it.complaints == []


def test_everything_can_be_reached_with_tab(open_page) -> None:
    it = open_page(harmless(3))
    reached = set()
    for _ in range(40):
        it.page.keyboard.press("Tab")
        reached.add(it.page.evaluate("document.activeElement.id || document.activeElement.className"))
    ids = {"numbers-category", "metric", "of", "order", "category", "search", "across", "up", "open", "skip"}
    assert ids <= reached


def test_the_scatter_plot_follows_its_axes(open_page) -> None:
    it = open_page(harmless(), rows=2)
    dots = it.page.locator("#scatter .dot")
    assert dots.count() == 24  # of all prompts, though few images are shown
    before = [dot.get_attribute("cx") for dot in dots.all()]
    it.choose("across", "2")
    assert [dot.get_attribute("cx") for dot in it.page.locator("#scatter .dot").all()] != before
    names = " ".join(it.page.locator("#scatter .axis-name").all_text_contents())
    assert "distance_from_base" in names
    it.page.locator("#scatter .dot").last.click()
    assert "thing 11 (candidate)" in it.page.locator("#pointed").inner_text()


def test_attacks_are_inert(open_page) -> None:
    it = open_page(hostile())
    assert it.page.evaluate("window.broken") is None
    assert it.page.locator(".prompt").all_text_contents() == list(EVIL)
    for control, option in (("order", "high"), ("category", EVIL[0]), ("metric", "1"), ("numbers-category", EVIL[1])):
        it.choose(control, option)
    it.choose("category", "")
    it.choose("order", "drawn")
    for i, evil in enumerate(EVIL):
        it.page.locator(".open").nth(i).hover()
        it.page.locator(".open").nth(i).click()
        assert it.page.locator("#viewer-title").text_content() == evil
        it.page.keyboard.press("Escape")
        it.page.locator("#scatter .dot").nth(i).dispatch_event("click")
        assert evil in it.page.locator("#pointed").text_content()
    for details in it.page.locator("summary").all():
        details.click()
    assert it.page.evaluate("window.broken") is None
    assert it.requests == []
    assert it.complaints == []


def test_a_script_that_got_in_all_the_same_would_not_run(open_page) -> None:
    it = open_page(harmless(2))
    it.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.broken = 1";
            document.body.append(script);
            const image = document.createElement("img");
            image.src = "https://example.com/a.png";
            image.setAttribute("onerror", "window.broken = 2");
            document.body.append(image);
        }"""
    )
    it.page.wait_for_timeout(200)
    assert it.page.evaluate("window.broken") is None
    assert any("Content Security Policy" in said for said in it.complaints)
    assert it.refused == {"https://example.com/a.png": "csp"}


@pytest.mark.parametrize("champion", [False, True], ids=["two models", "three models"])
@pytest.mark.parametrize("evaluation", [harmless, hostile])
def test_fits_a_phone(open_page, evaluation, champion: bool) -> None:
    it = open_page(harmless(champion=champion) if evaluation is harmless else hostile(), PHONE)
    fits = "document.scrollingElement.scrollWidth <= window.innerWidth"
    assert it.page.evaluate(fits)
    assert it.page.evaluate("window.innerWidth") == 360
    for details in it.page.locator("summary").all():
        details.click()
    assert it.page.evaluate(fits)
    it.page.locator(".open").first.click()
    viewer = it.page.locator("#viewer")
    assert viewer.evaluate("it => it.scrollWidth <= it.clientWidth")
    box = viewer.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    sizes = it.page.locator("button:visible, select:visible, input:visible").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 40  # large enough for a finger
    assert it.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(browser: Browser, tmp_path: Path, scheme) -> None:
    """WCAG 2.1, 1.4.3: a contrast of 4.5 or more."""
    file = tmp_path / "report.html"
    file.write_text(page(harmless(champion=True)), encoding="utf-8")
    context = browser.new_context(color_scheme=scheme)
    it = context.new_page()
    it.goto(file.as_uri())
    low = it.evaluate(
        """() => {
            const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
            const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
                .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const behind = (element) => {
                for (let at = element; at; at = at.parentElement) {
                    const colour = numbers(getComputedStyle(at).backgroundColor);
                    if (colour.length < 4 || colour[3] > 0) return colour;
                }
                return [255, 255, 255];
            };
            const found = [];
            for (const element of document.querySelectorAll("body *")) {
                const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
                if (!own || !element.checkVisibility() || element.closest("svg, noscript")) continue;
                const [a, b] = [light(numbers(getComputedStyle(element).color)), light(behind(element))];
                const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                if (contrast < 4.5) found.push(`${element.tagName}.${element.className}: ${contrast.toFixed(2)}`);
            }
            return found;
        }"""
    )
    context.close()
    assert low == []
