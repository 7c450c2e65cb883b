"""A proxy on the loopback address that passes everything on to a server, and spoils what it is told to spoil.

Knows HTTP, and of SGLang's replies that they name their weights. Does not know who asks.
"""

import itertools
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

GARBAGE = ('{"text": "', "[]", "null", '{"meta_info": {}}', "<html>Bad gateway</html>", '[{"text": 3}]', "[" * 10_000)


@dataclass
class Proxy:
    """What is spoilt, and what has been.

    Args:
        upstream: address of the server.
        fault: its name in `FAULTS`; None passes everything on.
        turn: whether it is the turn of the request of this number to be spoilt, counted from 0.
        begun: when the first request was spoilt.
    """

    upstream: str
    fault: str | None = None
    turn: Callable[[int], bool] = lambda number: True
    asked: int = 0
    spoilt: int = 0
    begun: float | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self, path: str) -> str | None:
        """What is to happen to this request: only those that generate are counted, and a hang is for all."""
        with self.lock:
            if path.startswith("/generate"):
                self.asked += 1
            elif self.fault != "hang" or self.begun is None:
                return None
            if self.fault is None or not self.turn(self.asked - 1):
                return None
            self.spoilt += 1
            self.begun = self.begun or time.monotonic()
            return self.fault


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy
    http: httpx.Client
    garbage: Iterator[str]

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.pass_on(b"")

    def do_POST(self) -> None:
        self.pass_on(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def pass_on(self, body: bytes) -> None:
        fault = self.proxy.next_fault(self.path)
        if fault is not None and not FAULTS[fault](self):
            return
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            reply = self.http.request(self.command, self.proxy.upstream + self.path, content=body, headers=headers)
        except httpx.TransportError:  # the server is gone, and so is this connection
            self.reset()
            return
        content, kind = reply.content, reply.headers.get("content-type", "text/plain")
        if fault == "wrong weights":
            content = b'"weight_version":"other"'.join(spans(content))
        if fault == "truncated":
            self.say(reply.status_code, content, kind, length=len(content) // 2)
        else:
            self.say(reply.status_code, content, kind)

    def say(self, status: int, content: bytes, kind: str = "application/json", length: int | None = None) -> None:
        """The reply; with `length`, so many bytes of it and then no more."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        with suppress(ConnectionError):  # who asked has given up
            self.wfile.write(content[:length])
        if length is not None:
            self.close_connection = True

    def reset(self) -> bool:
        """End the connection with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        return False


def spans(content: bytes) -> list[bytes]:
    """The reply without the label of its weights, cut where it stood."""
    reply = json.loads(content)
    label = (reply[0] if isinstance(reply, list) else reply)["meta_info"]["weight_version"]
    return content.split(f'"weight_version":"{label}"'.encode())


def late(handler: Handler) -> bool:
    time.sleep(random.uniform(0.5, 2.0))
    return True


def refused(status: int, said: bytes, kind: str = "application/json") -> Callable[[Handler], bool]:
    def fault(handler: Handler) -> bool:
        handler.say(status, said, kind)
        return False

    return fault


def garbled(handler: Handler) -> bool:
    handler.say(200, next(handler.garbage).encode())
    return False


def hung(handler: Handler) -> bool:
    handler.proxy.ended.wait()
    return handler.reset()


def spoilt_later(handler: Handler) -> bool:
    return True


# Each says whether the request is passed on all the same.
FAULTS: dict[str, Callable[[Handler], bool]] = {
    "latency": late,
    "reset": Handler.reset,
    "truncated": spoilt_later,
    "429": refused(429, b'{"error": {"message": "too many requests"}}'),
    "500": refused(500, b'{"error": {"message": "CUDA error: an illegal memory access"}}'),
    "503": refused(503, b"<html>\n<h1>Service Unavailable</h1>\n</html>", "text/html"),
    "wrong weights": spoilt_later,
    "hang": hung,
    "garbage": garbled,
}


@contextmanager
def serving(upstream: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy that runs, and its address."""
    proxy = Proxy(upstream)
    with httpx.Client(timeout=120, limits=httpx.Limits(max_connections=None)) as http:
        names = {"proxy": proxy, "http": http, "garbage": itertools.cycle(GARBAGE)}
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Spoiling", (Handler,), names))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy, f"http://127.0.0.1:{server.server_port}"
        finally:
            proxy.ended.set()
            server.shutdown()
            server.server_close()
