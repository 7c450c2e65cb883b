"""A file of JSON lines that grows by one line per finished piece of work, so that a kill loses nothing else."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psr.data.jsonl import DataError


class LineJournal:
    """Appends rows and reads back those of earlier processes; a last line that a kill tore in half is cut off.

    Raises:
        DataError: a line in the middle is no JSON.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = []
        whole = 0
        for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []):
            if not line.endswith(b"\n"):
                os.truncate(self.path, whole)
                break
            try:
                self.rows.append(json.loads(line))
            except ValueError as error:
                raise DataError(f"{self.path}, line {number + 1}: not JSON ({error}); delete the line") from None
            whole += len(line)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line; when this returns it survives the end of this process."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.rows.append(dict(row))
