"""Every reply of an endpoint as one line of a file, by the hash of its request. Standard library only.

The writer holds a lock on the file, so that a second process waits until the first has stored its last reply.
"""

import fcntl
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO

from psr.curation.annotator.settings import AnnotatorError, Reply


class ReplyJournal:
    """Appends replies to a JSONL file and knows those already there; an incomplete last line is cut off.

    Opening it waits for the lock.

    Raises:
        AnnotatorError: a whole line of the file is no reply; what has been paid for is not passed over in silence.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting until another process has its replies in {path}", file=sys.stderr)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self.replies = _read(self._file, path)

    def file(self, request: str, reply: Reply) -> None:
        """Write one line and sync it to disk; once this returns, it survives a kill."""
        line = json.dumps({"request": request, **asdict(reply)}, ensure_ascii=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.replies[request] = reply

    def close(self) -> None:
        self._file.close()


def _read(file: IO[bytes], path: Path) -> dict[str, Reply]:
    replies: dict[str, Reply] = {}
    whole = 0
    file.seek(0)
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            file.truncate(whole)
            break
        try:
            row = json.loads(line)
            request = row.pop("request")
            replies[request] = Reply(**row)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise AnnotatorError(
                f"{path}, line {number}: not a reply as this file keeps them: delete the line, and its request is sent "
                "again"
            ) from None
        whole += len(line)
    return replies
