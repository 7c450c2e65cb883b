"""Process-based self-rewarding language models: step search, pairwise self-judging, step-wise DPO."""

__version__ = "0.1.0"
