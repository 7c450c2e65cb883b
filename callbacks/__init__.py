"""Lightning callbacks, one file each: the loop, evaluation of every M(n), search steps and figures for W&B."""
