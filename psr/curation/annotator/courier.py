"""The process that sends requests and stores the replies; it outlives the command until its requests are answered.

    python -m psr.curation.annotator.courier JOURNAL ENDPOINT_AS_JSON

stdin has one JSON request body per line, stdout one {"request", ...reply} or {"request", "error"} per line. When stdin
ends, because the command is done or was killed, nothing more is sent or retried; requests in flight are awaited and
their replies stored. A new courier of the same journal waits for that (see `ReplyJournal`). So a command may be killed
at any moment and started again: no request is sent twice. Only if the courier itself is killed are its requests in
flight sent again.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict
from typing import Any

import httpx

from psr.curation.annotator.http import RateLimit, post
from psr.curation.annotator.journal import ReplyJournal
from psr.curation.annotator.settings import AnnotatorError, Endpoint, request_hash


def say(row: dict[str, Any]) -> None:
    """Write one line to the command, which may have ended."""
    with contextlib.suppress(BrokenPipeError, ValueError):
        print(json.dumps(row), flush=True)


async def carry(journal: ReplyJournal, endpoint: Endpoint) -> None:
    """Send requests until stdin ends, then wait for those in flight."""
    key = endpoint.key()
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    gate, limit, ended = asyncio.Semaphore(endpoint.concurrency), RateLimit(), asyncio.Event()
    under_way: dict[str, asyncio.Task[None]] = {}

    async with httpx.AsyncClient(headers=headers, limits=httpx.Limits(max_connections=None)) as http:

        async def one(request: str, body: dict[str, Any]) -> None:
            async with gate:
                if ended.is_set():
                    return
                try:
                    journal.file(request, await post(http, endpoint, limit, ended, request, body))
                except (AnnotatorError, OSError) as error:
                    say({"request": request, "error": str(error)})
                except Exception as error:  # whatever it is: the command would wait for ever
                    say({"request": request, "error": f"the request could not be sent: {error!r}"})
                else:
                    say({"request": request, "kept": False, **asdict(journal.replies[request])})

        async for line in lines():
            body = json.loads(line)
            request = request_hash(body)
            if request in journal.replies:
                say({"request": request, "kept": True, **asdict(journal.replies[request])})
            elif request not in under_way:
                under_way[request] = asyncio.ensure_future(one(request, body))
        ended.set()
        await asyncio.gather(*under_way.values())


async def lines() -> Any:
    """The lines of stdin."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.endswith(b"\n"):  # a kill may leave the last one incomplete
            yield line


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command; this process ends after it
    path, endpoint = sys.argv[1], Endpoint(**json.loads(sys.argv[2]))
    try:
        journal = ReplyJournal(path)
    except AnnotatorError as error:
        sys.exit(f"psr: {error}")
    asyncio.run(carry(journal, endpoint))
    journal.close()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    os._exit(0)  # skips the error about a stdout that nobody reads


if __name__ == "__main__":
    main()
