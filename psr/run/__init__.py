"""Runs: the stages of a recipe, the run directory, its settings and results."""
