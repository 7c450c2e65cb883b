"""Step trees: prefix trees of trajectories, packed into rows, with their attention and log-probabilities."""
