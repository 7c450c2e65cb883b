"""The base class of errors that the user can fix: `psr` prints only their message and exits with 1.

Knows nothing of psr: every package may import it. The errors of one package are defined there.
"""


class PSRError(Exception):
    """An error that the user can fix; the message names the file or setting, its value and the fix."""


class UsageError(PSRError, ValueError):
    """A setting that cannot work; the message names the setting, its value and the fix."""


class NoPairsError(PSRError, RuntimeError):
    """An iteration has nothing to train on."""
