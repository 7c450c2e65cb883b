"""The weights of a folder as SGLang takes them from memory: handles of tensors that both processes see.

The bytes stay in the node's shared memory; the request carries where they are. Knows safetensors and SGLang's format of
`/update_weights_from_tensor`. Does not know HTTP.
"""

import asyncio
import base64
import fcntl
import io
import os
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BUCKET = 2**30
"""Bytes of tensors that are in shared memory at a time, or those of one tensor that is larger."""


@dataclass(frozen=True)
class Bucket:
    """Some tensors of a folder; they have to be kept until the server has read them.

    Args:
        payload: base64 of the pickled handles.
        tensors: what the handles point to.
        last: none are left after it.
    """

    payload: str
    tensors: "list[tuple[str, Tensor]]"
    last: bool


def buckets(folder: Path) -> Iterator[Bucket]:
    """All tensors of a folder, in shared memory, some at a time; each file is read once."""
    from safetensors import safe_open  # torch comes with it, which an engine that is only named does not need

    pending: list[tuple[str, Tensor]] = []
    size = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                tensor = tensors.get_tensor(name)
                if pending and size + tensor.nbytes > BUCKET:
                    yield shared(pending, last=False)
                    pending, size = [], 0
                pending.append((name, tensor))
                size += tensor.nbytes
    yield shared(pending, last=True)


def shared(tensors: "list[tuple[str, Tensor]]", last: bool) -> Bucket:
    """The tensors, copied into shared memory."""
    from torch import multiprocessing

    # A handle of torch's default way is a file descriptor, which this process would have to hand over by a socket; on
    # this way it is a name. torch removes what is left under it when this process has ended, however it ends.
    before = multiprocessing.get_sharing_strategy()
    multiprocessing.set_sharing_strategy("file_system")
    try:
        copies = [(name, tensor.clone().share_memory_()) for name, tensor in tensors]
        buffer = io.BytesIO()
        ForkingPickler(buffer).dump(copies)
    finally:
        multiprocessing.set_sharing_strategy(before)
    return Bucket(base64.b64encode(buffer.getvalue()).decode(), copies, last)


@asynccontextmanager
async def alone_with(url: str) -> AsyncIterator[None]:
    """No other process of this user and node is in such a block with the same server: it takes one update at a time."""
    path = Path(tempfile.gettempdir()) / f"psr-push-{os.getuid()}-{zlib.crc32(url.encode()):08x}.lock"
    with path.open("w") as lock:  # held until the file is closed, which the system does after a kill
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield
