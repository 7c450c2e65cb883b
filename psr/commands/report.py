"""`psr report`: reads one or several runs and writes a page, images and Markdown."""

from pathlib import Path

from rich.console import Console

from psr.errors import UsageError
from psr.files.whole import write_text


def report(runs: list[Path], out: Path | None = None, problems: int = 20, images: bool = True) -> None:
    """Write report.html, one file that needs no network, the tables as report.md, and every figure as PNG and SVG.

    Args:
        runs: folders that `psr run` wrote to; runs that differ only in the seed share a colour.
        out: folder to write to; `report` in the first run's folder if not given.
        problems: how many searched problems of every iteration the page shows, drawn at random; more make a larger
            file.
        images: also write figures/*.svg and *.png; needs Chrome or Chromium on the machine.
    """
    from psr.report.images import NoBrowserError, write_images
    from psr.report.markdown import build_markdown
    from psr.report.page import build_page
    from psr.report.runs import read_runs
    from psr.report.sections import charts

    if problems < 0:
        raise UsageError(f"problems is {problems}: name how many problems of an iteration the page holds, 0 for none")
    found = read_runs(runs)
    out = out or found[0].folder.root / "report"
    console = Console()
    page = build_page(found, problems)
    write_text(out / "report.html", page)
    write_text(out / "report.md", build_markdown(found))
    console.print(f"{out / 'report.html'} ({len(page.encode()) / 1e6:.1f} MB), report.md")
    if images:
        try:
            console.print(f"{out / 'figures'}: {len(write_images(charts(found), out / 'figures'))} images")
        except NoBrowserError as error:
            console.print(f"no images: {error}")
