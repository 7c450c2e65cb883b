"""Search: candidates, judges, and many problems at once."""
