"""The page as a file: whole, escaped, small, and without any address that a browser would fetch. And the command."""

import base64
import gzip
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from psr.cli.main import main
from psr.files.jsonl import read_json, write_json
from psr.report.images import NoBrowserError, write_images
from psr.report.markdown import build_markdown
from psr.report.page import build_page
from psr.report.runs import read_runs
from psr.report.sections import charts
from tests.report.conftest import EXCERPT, HOSTILE, MakeRun


class Elements(HTMLParser):
    """Every element with its attributes, the ids, and whether they nest."""

    VOID = ("meta", "link", "img", "br", "input", "hr")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def unpacked(page: str, name: str) -> str:
    found = re.search(rf'id="packed-{name}">([^<]*)</script>', page)
    assert found
    return gzip.decompress(base64.b64decode(found[1])).decode()


def test_the_page_is_whole_and_fetches_nothing(measured_run: Path, make_run: MakeRun):
    for paths in ([EXCERPT], [measured_run, make_run("b", seed=1), make_run("c", recipe="srlm")]):
        elements = Elements(build_page(read_runs(paths), problems=2))
        assert elements.open == [], "every element is closed"
        ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
        assert len(ids) == len(set(ids))
        for tag, attributes in elements.found:
            assert "src" not in attributes
            href = attributes.get("href") or ""
            assert href.startswith(("#", "data:text/csv;")) or href in ("", "data:,"), tag
            assert not href.startswith("#") or href[1:] in ids, href
        policy = [a["content"] for tag, a in elements.found if tag == "meta" and "Content-Security" in str(a)]
        assert policy and str(policy[0]).startswith("default-src 'none'")


def test_what_a_model_wrote_cannot_end_a_script(make_run: MakeRun):
    page = build_page(read_runs([make_run(name="<b>run"), make_run(name="other", recipe=HOSTILE)]), problems=4)
    assert "&lt;/script&gt;&lt;script&gt;document.title" in page, "the recipe's name is in the title"
    assert "<script>document.title" not in page and "<b>run" not in page and "<img" not in page
    assert Elements(page).open == []


def test_figures_and_traces_are_inside(make_run: MakeRun):
    runs = read_runs([make_run()])
    page = build_page(runs, problems=2)
    assert set(json.loads(unpacked(page, "figures"))) == {chart.key for chart in charts(runs)}
    assert len(json.loads(unpacked(page, "traces"))["runs"][0]["iterations"][0]["problems"]) == 2
    assert "plotly.js v" in unpacked(page, "plotly")[:200]
    assert len(page) < 2_500_000


def test_more_problems_make_a_larger_page_and_none_leaves_the_viewer_out(make_run: MakeRun):
    runs = read_runs([make_run(problems=30)])
    assert len(build_page(runs, 30)) > len(build_page(runs, 1))
    for path in runs[0].folder.root.glob("iterations/*/traces.jsonl"):
        path.unlink()
    assert 'id="search"' not in build_page(runs, 10)


def test_a_run_that_has_only_begun_has_a_page(make_run: MakeRun):
    """M1 is measured, nothing is searched or trained yet."""
    root = make_run()
    results = read_json(root / "results.json")
    write_json(root / "results.json", {**results, "models": results["models"][:1]})
    shutil.rmtree(root / "iterations")
    shutil.rmtree(root / "self_rewarding")
    page = build_page(read_runs([root]), 5)
    assert "Accuracy by iteration" in page and "Reward margin" not in page and 'id="search"' not in page
    assert Elements(page).open == [] and "| M1 | 50.0 |" in build_markdown(read_runs([root]))


def test_the_page_is_the_same_every_time():
    runs = read_runs([EXCERPT])
    assert build_page(runs, 2) == build_page(runs, 2)


def test_markdown_has_every_table_and_what_is_missing(make_run: MakeRun):
    text = build_markdown(read_runs([make_run("a"), make_run("b|c", recipe="srlm")]))
    assert "| made | 0 | 50.0 (40.4–59.6) | 70.0 (60.4–78.1) | 90.0 (82.6–94.5) | +40.0 |" in text
    assert "## Every model of b\\|c" not in text.replace("## Every model of b|c", "")
    assert "| setting | a | b\\|c |" in text
    assert "- Test-time scaling: run `psr analyse scaling`" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")


def test_the_command_writes_page_and_tables(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a, b = make_run("a"), make_run("b", seed=1)
    main(["report", str(a), str(b), "--out", str(tmp_path / "out"), "--images", "false", "--problems", "1"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "report.md", "figures"}
    assert "report.html" in capsys.readouterr().out
    main(["report", str(a), "--images=false"])
    assert (a / "report" / "report.html").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere"], "holds no results"),
        (["RUN", "RUN"], "different folders"),
        (["RUN", "--problems=-1"], "problems is"),
    ],
)
def test_the_command_says_what_is_wrong(make_run: MakeRun, options: list[str], message: str):
    root = str(make_run())
    with pytest.raises(SystemExit, match=message):
        main(["report", *(root if word == "RUN" else word for word in options)])


def test_images_need_a_browser_and_say_so(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    with pytest.raises(NoBrowserError, match="no Chrome or Chromium"):
        write_images(charts(read_runs([make_run()]))[:1], tmp_path)
    monkeypatch.setattr("psr.commands.report.Console", lambda: Console(width=200))
    main(["report", str(make_run("b")), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "report.html").is_file()
