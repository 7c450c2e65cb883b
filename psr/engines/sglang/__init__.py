"""The engine that speaks to SGLang servers over HTTP, running ones or ones that it starts itself.

engine.py     SGLangEngine: the Engine protocol, weights and their versions, what goes where
replicas.py   one server or data-parallel rank each; a problem's requests stay with one
protocol.py   Sampling and Completion as SGLang's JSON
transport.py  HTTP connections, what is worth another try and what is not, the bound on requests in flight
server.py     a server that psr starts, watches, restarts and ends, under psr/processes/guard.py
cpu/          what SGLang lacks on a machine without a GPU; on a server's import path with `device: cpu` only
"""

from psr.engines.sglang.engine import SGLangEngine
from psr.engines.sglang.server import Launch

__all__ = ["Launch", "SGLangEngine"]
