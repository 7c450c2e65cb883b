"""Processes: ranks that share a search, signals to stop, a guard that ends what it started."""
