"""The annotator: every distinct request is sent once, over failures, rate limits and kills; nothing is ever lost."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from psr.curation.annotator.client import Annotator
from psr.curation.annotator.dry_run import estimate
from psr.curation.annotator.http import duration, retry_after
from psr.curation.annotator.settings import AnnotatorError, Endpoint
from psr.errors import PSRError, UsageError
from tests.curation.annotator.endpoint import Failure, FakeEndpoint, serving
from tests.recipes.tiny_run import environment


@pytest.fixture
def server() -> Iterator[FakeEndpoint]:
    with serving(FakeEndpoint(answer=lambda text: text.upper())) as endpoint:
        yield endpoint


def ask(server: FakeEndpoint, journal: Path, texts: list[str], **settings) -> tuple[list[str], Annotator]:
    endpoint = Endpoint(**{"url": server.url, "model": "m", "retries": 3, **settings})

    async def all_of_them() -> tuple[list[str], Annotator]:
        async with Annotator(endpoint, journal) as annotator:
            asked = [annotator.ask([{"role": "user", "content": text}]) for text in texts]
            return [reply.text for reply in await asyncio.gather(*asked)], annotator

    return asyncio.run(all_of_them())


def test_equal_requests_are_sent_once_and_later_runs_find_them_in_the_journal(server: FakeEndpoint, tmp_path: Path):
    replies, annotator = ask(server, tmp_path / "j.jsonl", ["a", "bb", "a"])
    assert replies == ["A", "BB", "A"]
    assert annotator.sent.line(Endpoint("http://h", "m", price_in=1e6)) == "2 requests, 3 + 4 tokens, cost 3.00"
    replies, annotator = ask(server, tmp_path / "j.jsonl", ["bb", "c"])
    assert replies == ["BB", "C"]
    assert (annotator.sent.requests, annotator.used.requests) == (1, 2)
    assert server.asked == {"a": 1, "bb": 1, "c": 1}
    ask(server, tmp_path / "j.jsonl", ["a"], temperature=1.0)
    assert server.asked["a"] == 2, "another temperature is another request"


@pytest.mark.parametrize("line", ["not JSON", "[]", '{"text": "A"}', '{"request": "x", "text": "A"}'])
def test_a_damaged_line_is_named_and_nothing_is_sent(
    line: str, server: FakeEndpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    ask(server, tmp_path / "j.jsonl", ["a", "b"], concurrency=1)
    first, second = (tmp_path / "j.jsonl").read_text().splitlines()
    damaged = f"{first}\n{line}\n{second}\n"
    (tmp_path / "j.jsonl").write_text(damaged)

    async def ask_at_once_and_late() -> None:
        async with Annotator(Endpoint(server.url, "m"), tmp_path / "j.jsonl") as annotator:
            for text in ("b", "c"):
                with pytest.raises(AnnotatorError, match="has ended; what it said is above"):
                    await annotator.ask([{"role": "user", "content": text}])

    asyncio.run(asyncio.wait_for(ask_at_once_and_late(), 30))
    assert f"psr: {tmp_path / 'j.jsonl'}, line 2: not a reply" in (said := capfd.readouterr().err)
    assert "Traceback" not in said
    assert server.asked == {"a": 1, "b": 1}
    assert (tmp_path / "j.jsonl").read_text() == damaged


def test_a_torn_last_line_is_asked_again(server: FakeEndpoint, tmp_path: Path):
    ask(server, tmp_path / "j.jsonl", ["a", "b"], concurrency=1)
    content = (tmp_path / "j.jsonl").read_bytes()
    (tmp_path / "j.jsonl").write_bytes(content[:-7])
    assert ask(server, tmp_path / "j.jsonl", ["a", "b"], concurrency=1)[0] == ["A", "B"]
    assert server.asked == {"a": 1, "b": 2}
    assert len((tmp_path / "j.jsonl").read_bytes().splitlines()) == 2


def test_failures_are_tried_again_and_retry_after_is_obeyed(server: FakeEndpoint, tmp_path: Path):
    server.failures = [Failure(429, {"Retry-After": "1"}), Failure(503)]
    assert ask(server, tmp_path / "j.jsonl", ["a"])[0] == ["A"]
    first, second, third = server.times
    assert second - first >= 1.0 and third - second >= 0.25


def test_a_used_up_budget_holds_back_all_further_requests(server: FakeEndpoint, tmp_path: Path):
    server.headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "700ms"}
    ask(server, tmp_path / "j.jsonl", ["a", "b"], concurrency=1)
    assert server.times[1] - server.times[0] >= 0.7


def test_so_many_are_under_way_and_no_more(server: FakeEndpoint, tmp_path: Path):
    server.seconds = 0.05
    ask(server, tmp_path / "j.jsonl", [f"t{i}" for i in range(12)], concurrency=3)
    assert server.most_running == 3


def test_a_refusal_ends_it_with_the_servers_words_and_keeps_what_was_there(server: FakeEndpoint, tmp_path: Path):
    ask(server, tmp_path / "j.jsonl", ["a"])
    server.failures = [Failure(401)]
    with pytest.raises(AnnotatorError, match=r"refuses the request \(status 401: not now\)"):
        ask(server, tmp_path / "j.jsonl", ["b", "a"])
    server.failures = [Failure(500)] * 2
    with pytest.raises(AnnotatorError, match="failed 2 times, the last time with status 500"):
        ask(server, tmp_path / "j.jsonl", ["c"], retries=1)
    assert ask(server, tmp_path / "j.jsonl", ["a"])[1].sent.requests == 0


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(
    server: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(UsageError, match="'MY_KEY': set that environment variable"):
        ask(server, tmp_path / "j.jsonl", ["a"], key_env="MY_KEY")
    told = []
    for held in ("two secret-4711", "secret-4711\r\nX-Other: 1", "sëcret-4711"):
        monkeypatch.setenv("MY_KEY", held)
        with pytest.raises(UsageError, match="is no key, but several words") as refused:
            ask(server, tmp_path / "j.jsonl", ["a"], key_env="MY_KEY")
        told.append(str(refused.value))
    monkeypatch.setenv("MY_KEY", "secret-4711\n")
    echo = '{"error": {"message": "Incorrect API key provided: secret-4711"}}'
    for failure in (Failure(403), Failure(401, body=echo), Failure(200, body=echo), Failure(200, body="secret-4711")):
        server.failures = [failure]
        with pytest.raises(AnnotatorError) as error:
            ask(server, tmp_path / "j.jsonl", ["b"], key_env="MY_KEY", retries=0)
        told.append(str(error.value))
    ask(server, tmp_path / "j.jsonl", ["a"], key_env="MY_KEY")
    assert server.keys == ["Bearer secret-4711"] * 5
    said = "".join([*capfd.readouterr(), *told])
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "secret-4711" not in said + written + repr(server.bodies)
    assert "Incorrect API key provided: [the key]" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"type": "text", "text": "A"}], r"content' is \[\{'type.*: it must be a text"),
        (4, "content' is 4: it must be a text"),
        ({"text": "A"}, "it must be a text"),
    ],
)
def test_content_that_is_no_text_is_refused(server: FakeEndpoint, tmp_path: Path, content: object, said: str):
    server.answer = lambda text: content
    with pytest.raises(AnnotatorError, match=rf"does not answer as OpenAI's chat completions do .*{said}"):
        ask(server, tmp_path / "j.jsonl", ["a"])
    assert server.asked == {"a": 1}
    server.answer = lambda text: None
    assert ask(server, tmp_path / "j.jsonl", ["a"])[0] == [""]


@pytest.mark.parametrize("body", ["[]", "null", "3", '{"choices": []}', '{"choices": [{"message": "A"}]}', "{}"])
def test_a_reply_of_another_shape_is_refused(server: FakeEndpoint, tmp_path: Path, body: str):
    server.failures = [Failure(200, body=body)]
    with pytest.raises(AnnotatorError, match="does not answer as OpenAI's chat completions do"):
        ask(server, tmp_path / "j.jsonl", ["a"])


def test_a_torn_reply_is_asked_for_again_and_half_a_character_is_no_end(server: FakeEndpoint, tmp_path: Path):
    server.failures = [
        Failure(200, body='{"choices": [{"mess'),
        Failure(200, body="<html>"),
        Failure(200, body="[" * 10_000),
    ]
    server.answer = lambda text: "half \ud83d"
    assert ask(server, tmp_path / "j.jsonl", ["a"])[0] == ["half ?"]
    assert ask(server, tmp_path / "j.jsonl", ["a"])[0] == ["half ?"], "and is kept"
    assert server.asked == {"a": 4}
    server.failures = [Failure(200, body="<html>")] * 2
    with pytest.raises(AnnotatorError, match="failed 2 times, the last time with a reply that is no JSON: '<html>'"):
        ask(server, tmp_path / "j.jsonl", ["b"], retries=1)


SCRIPT = """
import asyncio, sys
from pathlib import Path
from psr.curation.annotator.client import Annotator
from psr.curation.annotator.settings import Endpoint

async def main():
    async with Annotator(Endpoint(sys.argv[1], "m", concurrency=4), Path(sys.argv[2])) as annotator:
        asked = [annotator.ask([{"role": "user", "content": f"question {i}"}]) for i in range(40)]
        print("\\n".join(reply.text for reply in await asyncio.gather(*asked)))

asyncio.run(main())
"""


def test_killed_at_any_moment_no_request_is_sent_twice(server: FakeEndpoint, tmp_path: Path):
    server.seconds = 0.1
    call = [sys.executable, "-c", SCRIPT, server.url, str(tmp_path / "j.jsonl")]
    for kill in range(3):
        process = subprocess.Popen(call, env=environment(), start_new_session=True, stdout=subprocess.PIPE)
        answered = 8 * (kill + 1)
        while sum(server.asked.values()) < answered and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, "it was to be killed while it worked"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(call, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.stdout.split("\n")[:-1] == [f"QUESTION {i}" for i in range(40)], done.stderr
    assert server.asked == Counter({f"question {i}": 1 for i in range(40)})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2", 2.0), ("1.5s", 1.5), ("6m0s", 360.0), ("20ms", 0.02), ("", None), ("soon", None), ("1 s", None)],
)
def test_durations(text: str, seconds: float | None):
    assert duration(text) == seconds


def test_retry_after_may_be_a_date_or_milliseconds():
    assert retry_after(httpx.Headers({"retry-after-ms": "1500", "retry-after": "9"})) == 1.5
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    assert 95 < (retry_after(httpx.Headers({"retry-after": date})) or 0) <= 100
    assert retry_after(httpx.Headers({})) is None


def test_a_dry_run_counts_distinct_requests_and_shows_some():
    asked = ["x" * 350, "y" * 350, "x" * 350]
    shown = estimate(Endpoint("http://h/v1", "m", max_tokens=100, price_in=10.0, price_out=20.0), asked, examples=1)
    assert "2 requests to http://h/v1, model m" in shown
    assert "about 200 prompt tokens; at most 200 generated" in shown
    assert "x" * 350 in shown and "y" * 350 not in shown
    assert "0.01 in all" in shown


def test_settings_that_cannot_work_are_named():
    for settings, message in (({"url": "localhost"}, "annotator.url"), ({"concurrency": 0}, "annotator.concurrency")):
        with pytest.raises(PSRError, match=message):
            Endpoint(**{"url": "http://h/v1", "model": "m", **settings})
