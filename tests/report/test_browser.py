"""The page in a real browser, as a reader uses it: with a mouse, with the keyboard alone, on a phone, in the dark.

`PSR_SCREENSHOTS=DIR` keeps the screenshots that the tests take.
"""

import csv
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from psr.files.jsonl import write_jsonl
from psr.report.images import write_images
from psr.report.page import build_page
from psr.report.runs import read_runs
from psr.report.sections import charts
from psr.sweeps.results import write_sweep
from tests.report.conftest import ANALYSES, EXCERPT, HOSTILE, SWEEP, MakeRun

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'psr[dev]'")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"no browser: none of {', '.join(BROWSERS)} is installed")

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 375, "height": 740}
PATIENCE = 120_000
"""Milliseconds to wait for anything: a busy machine is slow, and that is no defect of the page."""


@dataclass
class Reader:
    """A page that is open in the browser, with what went wrong in it."""

    page: "sync_api.Page"
    folder: Path
    complaints: list[str] = field(default_factory=list)

    def screenshot(self, name: str, full: bool = False) -> None:
        path = self.folder / f"{name}.png"
        self.page.screenshot(path=path, full_page=full)
        assert path.stat().st_size > 10_000

    def focused(self) -> str:
        return str(self.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))

    def tab_to(self, *wanted: str) -> str:
        """Press Tab until something of `wanted` (ids, or beginnings of texts) has the focus."""
        for _ in range(80):
            self.page.keyboard.press("Tab")
            if self.focused().startswith(wanted):
                return self.focused()
        raise AssertionError(f"{wanted} cannot be reached with the keyboard")

    def widths(self) -> tuple[int, int]:
        """(what the page needs, what the window has), in CSS pixels."""
        needed, there = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        return needed, there


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        sync_api.expect.set_options(timeout=PATIENCE)
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


@pytest.fixture
def open_report(browser: "sync_api.Browser", tmp_path: Path) -> Iterator:
    """(paths of runs, viewport, colour scheme) -> Reader. At the end nothing may have been fetched or complained of."""
    opened: list[Reader] = []
    folder = Path(os.environ.get("PSR_SCREENSHOTS", tmp_path))

    def open_it(paths: list[Path], viewport: dict[str, int] = DESKTOP, scheme: str = "light") -> Reader:
        file = tmp_path / "report.html"
        file.write_text(build_page(read_runs(paths), problems=4), encoding="utf-8")
        context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE)
        reader = Reader(context.new_page(), folder)
        reader.page.on("console", lambda message: reader.complaints.append(f"{message.type}: {message.text}"))
        reader.page.on("pageerror", lambda error: reader.complaints.append(f"error: {error}"))
        reader.page.on("request", lambda asked: reader.complaints.append(f"request: {asked.url}"))
        reader.page.goto(file.as_uri())
        reader.page.wait_for_selector("body[data-figures=drawn]")
        reader.page.wait_for_selector("#problem header")
        reader.complaints.remove(f"request: {file.as_uri()}")
        opened.append(reader)
        return reader

    yield open_it
    for reader in opened:
        left = [text for text in reader.complaints if not text.startswith(("request: data:", "request: blob:"))]
        assert left == []
        reader.page.context.close()


def test_a_reader_looks_at_a_real_run(open_report, make_run: MakeRun):
    reader = open_report([EXCERPT])
    page = reader.page
    assert page.locator(".plot svg.main-svg").count() >= 2 * page.locator(".plot").count()
    page.select_option("#pick-iteration", label="M2 searches for M3")
    names = page.locator("#pick-problem option").all_text_contents()
    assert len(names) == 3 and "All of 3 problems" in page.inner_text("#sample")
    page.select_option("#pick-problem", label=names[1])
    steps = page.locator(".expansion h3 button")
    page.get_by_role("button", name="Expand all").click()
    assert steps.evaluate_all("all => all.every((one) => one.getAttribute('aria-expanded') === 'true')")
    steps.last.click()
    assert steps.last.get_attribute("aria-expanded") == "false"
    page.locator(".tree g.branch").last.click()
    assert steps.last.get_attribute("aria-expanded") == "true"
    page.locator("#next").click()
    assert page.input_value("#pick-problem") == names[2]
    page.locator("#search").scroll_into_view_if_needed()
    reader.screenshot("desktop-light-viewer")


def test_the_hard_search_is_shown_as_it_went(open_report, make_run: MakeRun):
    reader = open_report([make_run()])
    page = reader.page
    assert page.title() == "made · psr report", "no text of a model has run as a script"
    page.select_option("#pick-kind", "rolled")
    assert page.locator(".expansion .event").all_text_contents() == ["rolled back", "nobody won", "kept", "kept"]
    page.get_by_role("button", name="Expand all").click()
    shown = page.inner_text("#problem")
    assert "</script><script>document.title='owned'</script>" in shown
    assert "rolled back" in shown and "sampled 2 times" in shown and "$\\frac{1}{$" in shown
    assert page.locator("#problem math mfrac").count() > 0 and page.locator("#problem math .boxed").count() > 0
    verdicts = page.locator(".expansion").nth(2).locator(".verdicts summary").all_inner_texts()
    assert ["c2" in verdicts[0] and "beats" in verdicts[0], "no winner" in verdicts[1]] == [True, True]
    assert "A c1, B c2 → c2" in verdicts[0] and "A c2, B c1 → c2" in verdicts[0]
    assert "the orders disagree" in page.locator(".expansion").nth(1).inner_text()
    assert page.locator(".tree path.kept.chosen").count() == 2
    page.select_option("#pick-kind", "unfinished")
    assert "No problem of this kind" in page.inner_text("#problem")


def test_nothing_that_a_stranger_wrote_runs(open_report, make_run: MakeRun):
    """As the id of a problem, its text, a step, a judge's reply and the name of the recipe."""
    root = make_run(recipe=HOSTILE)
    path = root / "iterations" / "02" / "traces.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["problem"] = {"id": f"{row['problem']['id']}{HOSTILE}", "problem": HOSTILE}
    write_jsonl(path, rows)
    page = open_report([root]).page
    page.select_option("#pick-iteration", label="M1 searches for M2")
    page.get_by_role("button", name="Expand all").click()
    assert "<img src=x onerror=alert(1)>" in page.inner_text("#problem header")
    assert page.title() != "owned" and page.locator("img").count() == 0


def test_the_keyboard_is_enough(open_report, make_run: MakeRun):
    reader = open_report([make_run("a"), make_run("b", recipe="srlm")])
    page = reader.page
    page.keyboard.press("Tab")
    assert reader.focused() == "Skip to the results"
    reader.tab_to("theme")
    page.keyboard.press("Enter")
    assert page.get_attribute("html", "data-theme") == "dark"
    reader.tab_to("made")
    page.keyboard.press("Space")
    assert page.get_attribute("[data-group='0']", "aria-pressed") == "false"
    reader.tab_to("pick-run")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#pick-run") == "b"
    reader.tab_to("pick-problem")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#pick-problem") == "hard/1"
    reader.tab_to("Step 1")
    expanded = "document.activeElement.getAttribute('aria-expanded')"
    before = page.evaluate(expanded)
    page.keyboard.press("Enter")
    assert page.evaluate(expanded) != before


def test_the_tree_is_walked_with_arrows_and_told_to_a_screen_reader(open_report, make_run: MakeRun):
    reader = open_report([make_run()])
    page = reader.page
    page.locator(".tree-scroll").first.focus()
    page.keyboard.press("Tab")
    label = "document.activeElement.getAttribute('aria-label')"
    assert page.evaluate(label) == "Step 1, rolled back; c1: 1 win, chosen"
    for key, found in (
        ("ArrowRight", "Step 2, nobody won; c1: 0 wins, chosen"),
        ("End", "Step 2, kept; c1: 0 wins, chosen"),
        ("ArrowDown", "Step 2, kept; c1: 0 wins, chosen"),
        ("ArrowUp", "Step 1, kept; c2: 1 win, chosen"),
        ("Home", "Step 1, rolled back; c1: 1 win, chosen"),
    ):
        page.keyboard.press(key)
        assert page.evaluate(label) == found, key
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    opened = page.locator(".expansion h3 button").last
    assert opened.get_attribute("aria-expanded") == "true" and "Step 2" in reader.focused()
    page.keyboard.press("Shift+Tab")
    heard = page.locator("#search").aria_snapshot()
    for words in (
        'group "Search tree"',
        'button "Step 2, nobody won; c1: 0 wins, chosen"',
        'status: "Problem hard/0: finished · 2 steps kept · 1 rolled back · 1 tie · 1 step pair"',
        "[expanded]",
    ):
        assert words in heard, heard
    page.click("#next")
    assert page.inner_text("#told").startswith("Problem hard/1: finished")


def test_two_runs_stand_side_by_side(open_report, make_run: MakeRun):
    reader = open_report([make_run("a"), make_run("b", gain=0.1)])
    page = reader.page
    rows = page.locator("#table-side-by-side tbody tr").all_inner_texts()
    assert "greedy accuracy, %, M3\t90.0\t70.0\t−20.0" in rows
    assert page.locator("#beside").is_hidden()
    page.select_option("#pick-problem", "hard/2")
    page.select_option("#pick-beside", "b, M1")
    assert page.locator("#beside .expansion").count() == page.locator("#problem .expansion").count() == 4
    boxes = [page.locator(one).bounding_box() for one in ("#problem", "#beside")]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    before = page.locator("#problem .expansion h3 button").last.get_attribute("aria-expanded")
    page.locator("#beside .tree g.branch").last.click()
    assert page.locator("#beside .expansion h3 button").last.get_attribute("aria-expanded") == "true"
    assert page.locator("#problem .expansion h3 button").last.get_attribute("aria-expanded") == before
    page.click("#next")
    assert "Problem 3" in page.locator("#beside .statement").inner_text(), "it follows"
    page.set_viewport_size(PHONE)
    for _ in range(200):  # figures follow the window a little later
        if reader.widths() == (PHONE["width"], PHONE["width"]):
            break
        page.wait_for_timeout(50)
    assert reader.widths() == (PHONE["width"], PHONE["width"])
    page.select_option("#pick-beside", "nothing")
    assert page.locator("#beside").is_hidden()


def test_a_figure_hands_out_its_numbers(open_report, make_run: MakeRun):
    reader = open_report([make_run()])
    with reader.page.expect_download() as waiting:
        reader.page.get_by_role("link", name="Accuracy by iteration as CSV", exact=True).click()
    assert waiting.value.suggested_filename == "accuracy.csv"
    rows = list(csv.DictReader(waiting.value.path().open(encoding="utf-8")))
    assert [(row["model"], float(row["greedy accuracy, %"])) for row in rows] == [("M1", 50), ("M2", 70), ("M3", 90)]
    assert all(float(row["low"]) < float(row["greedy accuracy, %"]) < float(row["high"]) for row in rows)
    assert reader.page.locator(".csv a").count() == reader.page.locator(".plot").count()


def test_it_is_printed_light_and_whole(open_report, make_run: MakeRun, tmp_path: Path):
    reader = open_report([make_run("a", analyses=ANALYSES)], scheme="dark")
    page = reader.page
    line = page.locator("#figure-accuracy .scatterlayer path.js-line")
    dark = line.evaluate("line => line.style.stroke")
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 with margins of a centimetre
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    sync_api.expect(line).not_to_have_css("stroke", dark)
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    for hidden in (".top", "#picker", ".csv >> nth=0"):
        assert page.locator(hidden).is_hidden(), hidden
    wide = "all => all.filter((one) => one.getBoundingClientRect().right > 718).map((one) => one.outerHTML)"
    assert page.locator(".plot svg.main-svg, table, .searched svg").evaluate_all(wide) == []
    high = "all => all.filter((one) => one.scrollHeight > one.clientHeight + 1).map((one) => one.dataset.chart)"
    assert page.locator(".plot").evaluate_all(high) == [], "no figure lies over its caption"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    sync_api.expect(line).to_have_css("stroke", dark)
    assert page.pdf(path=tmp_path / "report.pdf", format="A4").startswith(b"%PDF")


def test_the_theme_follows_the_system_until_the_reader_chooses(open_report, make_run: MakeRun):
    reader = open_report([make_run("a", analyses=ANALYSES)], scheme="dark")
    page = reader.page
    line = page.locator("#figure-accuracy .scatterlayer path.js-line")
    seen = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.documentElement).colorScheme]"
    dark, stroke = page.evaluate(seen), line.evaluate("line => line.style.stroke")
    assert page.get_attribute("#theme", "aria-pressed") == "true" and dark[1] == "dark"
    reader.screenshot("desktop-dark", full=True)
    page.click("#theme")
    sync_api.expect(line).not_to_have_css("stroke", stroke)
    light = page.evaluate(seen)
    assert light[0] != dark[0] and light[1] == "light"
    reader.screenshot("desktop-light", full=True)
    page.reload()
    page.wait_for_selector("body[data-figures=drawn]")
    assert page.evaluate(seen) == light, "the choice is remembered"
    reader.complaints.remove(f"request: {page.url}")


def test_runs_can_be_switched_off_in_all_figures(open_report, make_run: MakeRun):
    reader = open_report([make_run("a"), make_run("b", seed=1), make_run("c", recipe="srlm")])
    lines = reader.page.locator("#figure-accuracy .scatterlayer .trace")
    sync_api.expect(lines).to_have_count(4)
    reader.page.click("[data-group='0']")
    sync_api.expect(lines).to_have_count(1)
    sync_api.expect(reader.page.locator("#figure-kl .scatterlayer .trace")).to_have_count(1)


def test_a_phone_scrolls_in_one_direction_only(open_report, make_run: MakeRun):
    folder = make_run("a", analyses=ANALYSES)
    write_sweep(folder, "beta-and-lr", SWEEP)
    reader = open_report([folder, EXCERPT], viewport=PHONE)
    assert reader.page.locator("#figure-sweep-0 .scatterlayer .trace").count() == 3
    assert reader.widths() == (PHONE["width"], PHONE["width"])
    reader.screenshot("phone-light", full=True)
    reader.page.get_by_role("button", name="Expand all").click()
    reader.page.locator("details").evaluate_all("all => all.forEach((one) => (one.open = true))")
    assert reader.widths() == (PHONE["width"], PHONE["width"])
    reader.page.click("#theme")
    reader.page.locator("#search").scroll_into_view_if_needed()
    reader.screenshot("phone-dark")


def test_the_figures_are_written_as_images(make_run: MakeRun, tmp_path: Path):
    drawn = [chart for chart in charts(read_runs([make_run()])) if chart.key in ("accuracy", "rewards")]
    paths = write_images(drawn, tmp_path / "figures")
    assert [path.name for path in paths] == ["accuracy.svg", "accuracy.png", "rewards.svg", "rewards.png"]
    assert "Accuracy by iteration" in paths[0].read_text() and paths[0].read_text().startswith("<svg")
    assert paths[1].read_bytes().startswith(b"\x89PNG")
