"""A folder of weights on its way to a server: the label it is served under, and a copy on the node's local disk.

Knows files. Does not know servers.
"""

import fcntl
import re
import shutil
import zlib
from pathlib import Path


def label_of(folder: Path, version: str) -> str:
    """`version` with a digest of the folder's files (names, sizes, times): the same in every process that loads it.

    So several ranks can share a server, and the M2 of another run is told apart from ours. It names a folder and stands
    on a command line: of a version that is a path, only the last part is taken.
    """
    files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.iterdir())]
    name = re.sub(r"[^\w.-]+", "-", Path(version).name)
    return f"{name}-{zlib.crc32(repr(files).encode()):08x}"


def staged(folder: Path, stage: Path, label: str) -> Path:
    """The copy of `folder` in `stage`, made by the first process of the node that asks; older copies are removed.

    It appears under its name only when it is complete, even if the process that copies is killed.
    """
    stage.mkdir(parents=True, exist_ok=True)
    copy, partial = stage / label, stage / f"{label}.partial"
    with (stage / "lock").open("w") as lock:  # held until the file is closed, which the system does after a kill
        fcntl.flock(lock, fcntl.LOCK_EX)
        for other in stage.iterdir():
            if other.is_dir() and other != copy:
                shutil.rmtree(other)
        if not copy.is_dir():
            shutil.copytree(folder, partial)
            partial.rename(copy)
    return copy
