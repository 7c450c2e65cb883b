"""Two nodes on one machine: network namespaces joined by a cable where the system allows it, else the loopback.

In a namespace of its own a node has its own addresses, interfaces and ports, and reaches the other by the cable alone.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Node:
    """Where a command is to run, the node's address, and the interface that it has it on."""

    prefix: tuple[str, ...]
    address: str
    interface: str


LOOPBACK = Node((), "127.0.0.1", "lo")


@contextlib.contextmanager
def two_nodes() -> Iterator[tuple[Node, Node]]:
    names = [f"psr-{os.getpid()}-{end}" for end in "ab"]
    cables = [f"psr{os.getpid()}{end}" for end in "ab"]
    nodes = [Node(("ip", "netns", "exec", names[i]), f"10.77.0.{i + 1}", cables[i]) for i in (0, 1)]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for name, node in zip(names, nodes, strict=True):
            ip("link", "set", node.interface, "netns", name)
            ip("-n", name, "addr", "add", f"{node.address}/24", "dev", node.interface)
            ip("-n", name, "link", "set", node.interface, "up")
            ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError):  # no such program, or not allowed
        nodes = [LOOPBACK, LOOPBACK]
    try:
        yield nodes[0], nodes[1]
    finally:
        for name in names:
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                ip("netns", "del", name)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def kill_with_children(pid: int) -> None:
    """SIGKILL for a process and all that descend from it, at once: as if the power had failed."""
    found = [pid]
    for one in found:
        for thread in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, thread.read_text().split())
    for one in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
