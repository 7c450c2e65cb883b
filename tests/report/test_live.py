"""`psr report --watch`: a page that follows a run, in a real browser; reachable from this machine alone."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from psr.cli.main import main
from psr.data.traces import TraceJournal
from psr.files.jsonl import write_json
from psr.report.live import LiveReport, make_server
from psr.report.viewer import Lines, drawn
from psr.run.results import put_model, read_results
from tests.chaos.runs import heed_ctrl_c
from tests.recipes.tiny_run import command, environment
from tests.report.conftest import MakeRun, hard_search
from tests.report.test_browser import CHROMIUM, PATIENCE, browser, sync_api  # noqa: F401 - a fixture

Serve = Callable[[Path], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """(folder of a run) -> the address of its page."""
    servers = []

    def start(folder: Path) -> str:
        server = make_server(LiveReport(folder, problems=20), port=0)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def note(folder: Path, **more: object) -> None:
    shown = {"title": "M2 searches", "done": 30, "total": 120, "note": "57 in <b>flight</b>", "rate": 2.5}
    write_json(folder / "progress.json", {**shown, "seconds_left": 36.0, "time": time.time(), **more})


def test_the_status_changes_with_what_it_is_made_of(make_run: MakeRun, serve: Serve):
    folder = make_run()
    address = serve(folder)
    status = httpx.get(f"{address}/status").json()
    assert status["phase"] is None
    note(folder)
    TraceJournal(folder / "iterations" / "02" / "traces.jsonl", "M1").append(hard_search(99))
    later = httpx.get(f"{address}/status").json()
    assert later["phase"]["title"] == "M2 searches" and not later["phase"]["silent"]
    assert later["traces"] > status["traces"] and later["page"] == status["page"]
    found = httpx.get(f"{address}/traces").json()
    assert found["runs"][0]["iterations"][0]["searched"] == 5
    note(folder, time=time.time() - 60)
    assert httpx.get(f"{address}/status").json()["phase"]["silent"]


def test_a_torn_file_leaves_the_page_as_it_was(make_run: MakeRun, serve: Serve):
    folder = make_run()
    address = serve(folder)
    before, status = httpx.get(address).text, httpx.get(f"{address}/status").json()
    (folder / "results.json").write_text('{"models": [{"na')
    assert httpx.get(address).text == before
    assert httpx.get(f"{address}/status").json()["page"] == status["page"], "or the browser loads it again and again"


def test_only_this_machine_by_its_own_name_can_ask(make_run: MakeRun, serve: Serve):
    address = serve(make_run())
    assert httpx.get(address, headers={"Host": "evil.example"}).status_code == 403
    assert httpx.get(address, headers={"Host": "localhost:1"}).status_code == 200
    assert httpx.get(f"{address}/../run.json").status_code == 404
    assert httpx.post(address).status_code == 501


def test_a_file_that_grows_is_read_on_where_it_was_left(tmp_path: Path):
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntw")
    lines = Lines(path)
    assert lines.read_on().offsets == [0]
    with path.open("ab") as file:
        file.write(b"o\nthree\n")
    assert lines.read_on().offsets == [0, 4, 8] == Lines(path).read_on().offsets


def test_one_more_line_changes_the_sample_by_one_at_most():
    ids = [f"problems/{number}".encode() for number in range(60)]
    for size in range(1, 60):
        before, after = set(drawn(ids[:size], 5)), set(drawn(ids[: size + 1], 5))
        assert len(after) == min(size + 1, 5) and len(after - before) <= 1


def test_a_taken_port_and_several_runs_are_named(make_run: MakeRun, serve: Serve):
    folder = make_run()
    port = serve(folder).rpartition(":")[2]
    for words, named in (([str(folder), "--port", port], f"port is {port}"), ([str(folder), "b"], "follows one run")):
        with pytest.raises(SystemExit) as ended:
            main(["report", *words, "--watch"])
        assert named in str(ended.value)


def test_ctrl_c_ends_it_well(make_run: MakeRun):
    words = [sys.executable, "-m", "psr.cli.main", "report", str(make_run()), "--watch", "--port", "0"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, env=environment(), stdout=pipe, stderr=pipe, text=True, preexec_fn=heed_ctrl_c)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert httpx.get(line.split()[4]).status_code == 200, line
    process.send_signal(subprocess.signal.SIGINT)  # type: ignore[attr-defined]
    assert (process.wait(60), process.communicate()[1]) == (0, "")


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no browser is installed")


@needs_browser
def test_the_page_follows_and_the_reader_keeps_the_place(make_run: MakeRun, serve: Serve, browser):  # noqa: F811
    folder = make_run()
    note(folder)
    page = browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(serve(folder))
    sync_api.expect(page.locator("#live-phase")).to_have_text("M2 searches")
    figures = page.locator("#live-figures")
    sync_api.expect(figures).to_have_text("30 of 120, 2.50/s, 36 s left, 57 in <b>flight</b>")
    page.select_option("#pick-iteration", "M2 searches for M3")
    page.select_option("#pick-problem", "hard/2")
    page.locator(".expansion h3 button").last.click()
    TraceJournal(folder / "iterations" / "03" / "traces.jsonl", "M1").append(hard_search(99))
    sync_api.expect(page.locator("#pick-problem option")).to_have_count(5)
    assert page.input_value("#pick-problem") == "hard/2"
    assert page.locator(".expansion h3 button").last.get_attribute("aria-expanded") == "true", "it is being read"
    measured = read_results(folder / "results.json")["models"][-1]
    put_model(folder / "results.json", {**measured, "name": "M4"})
    sync_api.expect(page.locator("#table-details tbody tr")).to_have_count(4)
    sync_api.expect(page.locator("#pick-problem")).to_have_value("hard/2")
    (folder / "progress.json").unlink()
    sync_api.expect(page.locator("#live-phase")).to_have_text("The run is not under way.")
    assert complaints == []
    page.close()


@needs_browser
def test_it_follows_a_real_run_from_its_start_to_its_end(tmp_path: Path, serve: Serve, browser):  # noqa: F811
    folder = tmp_path / "run"
    run = subprocess.Popen(command(folder), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (folder / "run.json").is_file():
            time.sleep(0.05)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(serve(folder))
        assert "no model measured yet" in page.inner_text(".title")
        phase = page.locator("#live-phase")
        sync_api.expect(phase).to_have_text("training, steps")
        sync_api.expect(page.locator("#table-details tbody tr")).to_have_count(3)
        sync_api.expect(phase).to_have_text("The run is not under way.")
        page.select_option("#pick-iteration", "M2 searches for M3")
        assert "12 problems of this iteration" in page.inner_text("#sample")
        assert run.wait(60) == 0 and not (folder / "progress.json").exists()
        assert json.loads((folder / "run.json").read_text())["recipe"] == "tiny"
        page.close()
    finally:
        run.kill()
