"""`psr report --watch`: the report of a run that is under way, served on the loopback address until Ctrl-C.

One process, which only reads the run's folder: it may be started and ended whenever one likes, and the run knows
nothing of it. The page asks for the status every second. New results load the page anew; newly searched problems go
into the viewer, which stays where the reader is.
"""

import json
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from psr.errors import PSRError, UsageError
from psr.files.jsonl import read_json
from psr.report.page import build_page
from psr.report.runs import read_runs
from psr.report.viewer import Known, viewer_data
from psr.run.folder import RunFolder

ADDRESS = "127.0.0.1"
SILENT = 20.0
"""Seconds without a note after which a phase counts as stalled, or its process as gone."""


class LiveReport:
    """What the page of a run asks for. The server asks from several threads."""

    def __init__(self, root: Path, problems: int) -> None:
        self.run, self.problems = RunFolder(root.resolve()), problems
        self._lock = threading.Lock()
        self._known: Known = {}
        self._page = ("", "")
        self.page()  # a folder that is no run is told of at once

    def traces_size(self) -> int:
        return sum(path.stat().st_size for path in (self.run.root / "iterations").glob("*/traces.jsonl"))

    def status(self) -> dict[str, Any]:
        """`page` and `traces` change with what they are made of; `phase` is what is being done, None if nothing is."""
        self.page()  # the version of what can be had, not of files that are just being written
        return {"page": self._page[0], "traces": self.traces_size(), "phase": self.phase()}

    def phase(self) -> dict[str, Any] | None:
        noted = read_json(self.run.progress)
        return {**noted, "silent": time.time() - noted["time"] > SILENT} if noted else None

    def page(self) -> str:
        """The page, built where the results have changed. A run may be writing: then the page before is as good."""
        with self._lock:
            version = self._version()
            if self._page[0] != version:
                try:
                    runs = read_runs([self.run.root], under_way=True)
                    self._page = (version, build_page(runs, self.problems, live=version))
                except (ValueError, KeyError, OSError):
                    if not self._page[1]:
                        raise
            return self._page[1]

    def traces(self) -> str:
        with self._lock:
            runs = read_runs([self.run.root], under_way=True)
            return json.dumps(viewer_data(runs, self.problems, self._known))

    def _version(self) -> str:
        """Of the results, and whether there is anything for the viewer."""
        path = self.run.results
        found = path.stat() if path.is_file() else None
        return f"{found.st_mtime_ns if found else 0}-{self.traces_size() > 0}"


def make_server(live: LiveReport, port: int) -> ThreadingHTTPServer:
    """The server, listening. Raises UsageError where the port is taken."""
    answers: dict[str, tuple[str, Callable[[], str]]] = {
        "/": ("text/html", live.page),
        "/status": ("application/json", lambda: json.dumps(live.status())),
        "/traces": ("application/json", live.traces),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self._asked_by_name():
                self.send_error(HTTPStatus.FORBIDDEN)
            elif self.path not in answers:
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                kind, answer = answers[self.path]
                try:
                    body = answer().encode()
                except (PSRError, ValueError, KeyError, OSError):  # a file that is just being written: it asks again
                    self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
                    return
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body)

        def _asked_by_name(self) -> bool:
            """A page of the web whose name somebody points to this machine must not read the run."""
            return self.headers.get("Host", "").partition(":")[0] in (ADDRESS, "localhost")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    try:
        return ThreadingHTTPServer((ADDRESS, port), Handler)
    except OSError as error:
        raise UsageError(f"port is {port}: {error.strerror}; choose another, or 0 for any that is free") from None
