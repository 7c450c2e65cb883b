"""The command line `psr`."""
