"""The in-process engine: continuous batching and a prefix cache on transformers' own models."""

from psr.engines.local.engine import LocalEngine

__all__ = ["LocalEngine"]
