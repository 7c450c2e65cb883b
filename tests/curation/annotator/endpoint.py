"""A small OpenAI-compatible server for the tests: answers by a function, fails on demand, counts what it was asked."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Failure:
    """What a request meets instead of a reply."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None


@dataclass
class FakeEndpoint:
    """The state of the server: `answer(content of the last message)` is what it says.

    `asked` counts the requests by their last message, failures too; `times` is when each came.
    """

    answer: Callable[[str], Any]
    failures: list[Failure] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    asked: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serving(endpoint: FakeEndpoint) -> Iterator[FakeEndpoint]:
    """Serve on a free port of this machine; `endpoint.url` is the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def say(self, status: int, content: Any, headers: dict[str, str]) -> None:
            self.write(status, json.dumps(content), headers)

        def write(self, status: int, body: str, headers: dict[str, str]) -> None:
            text = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            content = body["messages"][-1]["content"]
            with endpoint.lock:
                endpoint.asked[content] += 1
                endpoint.times.append(time.monotonic())
                endpoint.keys.append(self.headers.get("Authorization"))
                endpoint.bodies.append(body)
                endpoint.running += 1
                endpoint.most_running = max(endpoint.most_running, endpoint.running)
                failure = endpoint.failures.pop(0) if endpoint.failures else None
            time.sleep(endpoint.seconds)
            with endpoint.lock:
                endpoint.running -= 1
            if self.path != "/v1/chat/completions":
                self.say(404, {"error": {"message": f"no {self.path}"}}, {})
            elif failure and failure.body is not None:
                self.write(failure.status, failure.body, failure.headers)
            elif failure:
                self.say(failure.status, {"error": {"message": "not now"}}, failure.headers)
            else:
                message = {"role": "assistant", "content": endpoint.answer(content)}
                usage = {"prompt_tokens": len(content), "completion_tokens": 2}
                reply = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
                self.say(200, reply, endpoint.headers)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
