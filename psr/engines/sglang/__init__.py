"""The engine that talks to SGLang servers over HTTP: running ones, or one that it starts itself.

engine.py     SGLangEngine: the Engine protocol, weights and their versions
fleet.py      all servers as one: loads weights everywhere, retries, repairs
replicas.py   servers and data-parallel ranks; a problem's requests stay with one of them
prefixes.py   common prefixes that are sent ahead
protocol.py   Sampling and Completion as SGLang's JSON
transport.py  HTTP connections, retries and the bound on sequences in flight
server.py     a server that psr starts, watches, restarts and stops, under psr/processes/guard.py
weights.py    the label of a folder of weights, and its copy on a node's local disk
cpu/          what SGLang lacks on a machine without a GPU; on a server's import path only with `device: cpu`
"""

from psr.engines.sglang.engine import SGLangEngine
from psr.engines.sglang.server import Launch

__all__ = ["Launch", "SGLangEngine"]
