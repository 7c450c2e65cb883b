#!/usr/bin/env python3
"""A process that speaks SGLang's protocol and has no model, for what a real server does too rarely: failing.

Started by the command line of `sglang serve`. A completion is the digits of the prompt's length and the version of the
weights, so that it tells who made it. What goes wrong is read from the environment:

    FAKE_STARTS     a folder; every start leaves a file there with its process id
    FAKE_FAILS      "503 503 drop" - what the next requests to /generate meet, over all starts; "die" ends the process
    FAKE_SLEEP      seconds before it listens
    FAKE_STUBBORN   if set, SIGTERM is ignored
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LONGEST_PROMPT = 90
GARBLED = {"torn": '[{"text": "', "few": "[]", "null": "null", "shape": '[{"output_ids": [1]}]', "deep": "[" * 10_000}
"""What comes instead of a reply, by the word of FAKE_FAILS."""


class State:
    """What the server serves, and what it has been asked."""

    label = ""
    model = ""
    lends = False
    lock = threading.Lock()
    running = most_running = loads = 0


def next_failure() -> str | None:
    """The next of FAKE_FAILS, kept in a file beside the marks of the starts, or None when all have happened."""
    path = Path(os.environ["FAKE_STARTS"]) / "fails"
    with State.lock:
        left = (path.read_text() if path.exists() else os.environ.get("FAKE_FAILS", "")).split()
        path.write_text(" ".join(left[1:]))
    return left[0] if left else None


def reply_to(prompt: list[int], parameters: dict[str, Any], choices: list[int] | None) -> dict[str, Any]:
    ids = [len(prompt) % 7 + 9, 1][: parameters["max_new_tokens"]]
    meta = {
        "finish_reason": {"type": "stop", "matched": 1} if len(ids) == 2 else {"type": "length", "length": len(ids)},
        "prompt_tokens": len(prompt),
        "cached_tokens": len(prompt) // 2,
        "completion_tokens": len(ids),
        "weight_version": State.label,
        "weight_versions": [{"version": State.label, "start": 0, "end": len(ids)}],
        "output_token_logprobs": [[-0.5, token, None] for token in ids],
    }
    if choices is not None:
        meta["output_token_ids_logprobs"] = [[[-float(choice), choice, None] for choice in reversed(choices)]]
    return {"text": "", "output_ids": ids, "meta_info": meta}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def say(self, content: Any, status: int = 200) -> None:
        self.write(json.dumps(content).encode(), status)

    def write(self, text: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        answers = {
            "/health": {},
            "/model_info": {"weight_version": State.label, "model_path": State.model},
            "/server_info": {
                "max_req_input_len": LONGEST_PROMPT + 1,
                "enable_deterministic_inference": False,
                "enable_memory_saver": State.lends,
                "device": "cuda",
            },
            "/most_running": State.most_running,
            "/loads": State.loads,
            "/pid": os.getpid(),
        }
        self.say(answers[self.path])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        path = self.path.partition("?")[0]
        if path == "/generate":
            self.generate(body)
        elif path == "/update_weights_from_disk":
            State.model, State.label = body["model_path"], body["weight_version"]
            State.loads += 1
            self.say({"success": True, "message": "done"})
        else:
            self.say({})

    def generate(self, body: dict[str, Any]) -> None:
        alone = isinstance(body["sampling_params"], dict)
        if alone:
            body = {name: value if name == "return_logprob" else [value] for name, value in body.items()}
        with (Path(os.environ["FAKE_STARTS"]) / "asked.jsonl").open("a") as asked:
            asked.write(json.dumps({"port": self.server.server_port, **body}) + "\n")
        failure = next_failure()
        if failure == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if failure == "drop":
            self.close_connection = True
            return
        if failure == "forget":  # as a server that somebody started again with its first weights
            State.label = "default"
        elif failure == "hang":
            time.sleep(3600)
        elif failure == "abort":
            replies = [reply_to(p, s, None) for p, s in zip(body["input_ids"], body["sampling_params"], strict=True)]
            replies[0]["meta_info"]["finish_reason"] = {"type": "abort", "message": "out of memory"}
            return self.say(replies[0] if alone else replies)
        elif failure == "echo":
            return self.say({"error": {"message": f"what is {self.headers['Authorization']}?"}}, 401)
        elif failure in GARBLED:
            return self.write(GARBLED[failure].encode())
        elif failure is not None:
            return self.say({"error": {"message": f"trouble number {failure}"}}, int(failure))
        size = len(body["input_ids"])
        with State.lock:
            State.running += size
            State.most_running = max(State.most_running, State.running)
        time.sleep(0.05)
        with State.lock:
            State.running -= size
        choices = body.get("token_ids_logprob") or [None] * size
        asks = zip(body["input_ids"], body["sampling_params"], choices, strict=True)
        replies = [reply_to(*ask) for ask in asks]
        return self.say(replies[0] if alone else replies)


def main() -> None:
    options = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=False))
    State.label, State.model = options["--weight-version"], options["--model-path"]
    State.lends = "--enable-memory-saver" in sys.argv
    if "FAKE_STUBBORN" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (Path(os.environ["FAKE_STARTS"]) / f"start-{os.getpid()}").write_text(" ".join(sys.argv))
    print("loading", options["--model-path"], flush=True)
    if "FAKE_BROKEN" in os.environ:
        sys.exit("CUDA out of memory: buy more")
    time.sleep(float(os.environ.get("FAKE_SLEEP", "0")))
    ThreadingHTTPServer((options["--host"], int(options["--port"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
