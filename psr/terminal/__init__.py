"""What a process shows of itself: on a terminal, or in a log file where there is none."""
