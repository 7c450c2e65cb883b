"""Lightning callbacks, one file each: the loop, evaluation of every M(n), preemption, tables and figures for W&B."""
