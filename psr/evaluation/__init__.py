"""Grading answers, running benchmarks and measuring judges."""
