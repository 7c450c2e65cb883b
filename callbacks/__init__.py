"""Lightning callbacks, one file each: the loop, evaluation of every M(n), the table of search steps."""
