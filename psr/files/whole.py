"""Files and folders that appear whole or not at all, and are there when the machine comes back after going down.

What is written goes to a place beside its own, from there to the disk, and takes its name in one step when it is
complete. What bore the name until then stays until then.

Knows files. Does not know what is in them.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from psr.errors import PSRError

PARTIAL, REPLACED = ".partial", ".replaced"


class StorageError(PSRError, OSError):
    """The system would not store something; the message names the file, the reason and that the old one is kept."""


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Where to write the file or folder that is to be `path`; it takes that name when the block ends well.

    Where it does not, what had been written is removed, to make room again, and what bore the name is untouched.

    Raises:
        StorageError: no room, no right, or another refusal by the system.
    """
    path = Path(path)
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(partial)
        yield partial
        _sync_all(partial)
        _put(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            remove(partial)
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            error = error.__context__  # torch.save stumbles over what it could not write
        if isinstance(error, (OSError, SafetensorError)) and not isinstance(error, PSRError):
            raise refused(path, error) from error
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def append_line(path: str | Path, line: str) -> None:
    """Append one line, all of it or nothing; when this returns it survives the end of this process.

    Raises:
        StorageError: no room, no right, or another refusal by the system.
    """
    path, data = Path(path), f"{line}\n".encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                written = 0
                while written < len(data):
                    written += file.write(data[written:])
            except BaseException:
                file.truncate(before)  # half a line would become one with the next that there is room for
                raise
    except OSError as error:
        raise refused(path, error) from error


def restore(path: Path) -> None:
    """Give a folder its name back where a kill came between the two renamings that replace it."""
    aside = path.with_name(path.name + REPLACED)
    if not path.exists() and aside.exists():
        os.rename(aside, path)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def refused(path: Path, error: BaseException) -> StorageError:
    """What a user is told of the system's refusal to write `path`."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return StorageError(
        f"{path} could not be written: {reason}. What was there before is kept: make room or give the right to write, "
        "and start the same command again"
    )


def _put(partial: Path, path: Path) -> None:
    """Give what is complete its name."""
    if path.is_symlink():
        path.unlink()  # what it points to belongs to another
    if path.is_dir():  # a folder cannot take another's name in one step: that one steps aside
        aside = path.with_name(path.name + REPLACED)
        remove(aside)
        os.rename(path, aside)
        os.rename(partial, path)
        _sync(path.parent)
        remove(aside)
    else:
        os.replace(partial, path)
        _sync(path.parent)


def _sync_all(path: Path) -> None:
    """Have the system store a file, or all of a folder."""
    if path.is_dir():
        for inner in path.iterdir():
            _sync_all(inner)
    _sync(path)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError:
        if not path.is_dir():  # some file systems cannot sync a folder, and need not
            raise
    finally:
        os.close(number)
