"""`psr report`: reads one or several runs and writes a page, images and Markdown."""

from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

from psr.bounds import CountOrNone, Port, bounded
from psr.errors import UsageError
from psr.files.whole import write_text


@bounded()
def report(
    runs: list[Path],
    out: Path | None = None,
    problems: CountOrNone = 20,
    images: bool = True,
    watch: bool = False,
    port: Port = 8400,
) -> None:
    """Write report.html, one file that needs no network, the tables as report.md, and every figure as CSV, PNG and SVG.

    With `watch` nothing is written: the page of a run that is under way is served on this machine until Ctrl-C, and
    follows the run.

    Args:
        runs: folders that `psr run` wrote to; runs that differ only in the seed share a colour.
        out: folder to write to; `report` in the first run's folder if not given.
        problems: how many searched problems of every iteration the page shows, drawn at random; more make a larger
            file.
        images: also write figures/*.svg and *.png beside the *.csv; needs Chrome or Chromium on the machine.
        watch: follow one run in the browser; only this machine can ask.
        port: where the page is served with `watch`; 0 takes any that is free.
    """
    from psr.report.images import NoBrowserError, write_images
    from psr.report.markdown import build_markdown
    from psr.report.numbers import write_numbers
    from psr.report.page import build_page
    from psr.report.runs import read_runs
    from psr.report.sections import charts

    if watch:
        follow(runs, problems, port)
        return
    found = read_runs(runs)
    out = out or found[0].folder.root / "report"
    console = Console()
    page = build_page(found, problems)
    write_text(out / "report.html", page)
    write_text(out / "report.md", build_markdown(found))
    link = Text(str(out / "report.html"), style=f"link {(out / 'report.html').resolve().as_uri()}")
    console.print(link + Text(f" ({len(page.encode()) / 1e6:.1f} MB), report.md"), soft_wrap=True)
    drawn = charts(found)
    write_numbers(drawn, out / "figures")
    if images:
        try:
            written = write_images(drawn, out / "figures")
            console.print(f"{out / 'figures'}: {len(written)} images", soft_wrap=True)
        except NoBrowserError as error:
            console.print(f"no images: {error}")


def follow(runs: list[Path], problems: int, port: int) -> None:
    """Serve the page of a run until Ctrl-C."""
    from psr.report.live import LiveReport, make_server

    if len(runs) != 1:
        raise UsageError(f"runs is {', '.join(map(str, runs))}: --watch follows one run")
    with make_server(LiveReport(runs[0], problems), port) as server, suppress(KeyboardInterrupt):
        address = f"http://{server.server_address[0]!s}:{server.server_address[1]}/"
        link = Text(address, style=f"link {address}")
        Console().print(Text("following the run at ") + link + Text(" until Ctrl-C"), soft_wrap=True)
        server.serve_forever(poll_interval=0.1)
