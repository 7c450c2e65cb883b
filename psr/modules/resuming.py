"""What a fit that goes on must have in common with the one that wrote its checkpoint: what is recorded is what ran.

An optimizer and a schedule that are read from a checkpoint come with their own settings, whatever the command line and
the saved config say. So the settings stand in the checkpoint as well, and others are refused by name.

Knows settings. Does not know what they mean.
"""

from collections.abc import Mapping
from typing import Any

from psr.policy.checkpoints import CheckpointError

NAME = "psr_settings"
"""Where a checkpoint keeps them."""


def check_same_settings(checkpoint: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise CheckpointError where the fit that wrote the checkpoint was set otherwise."""
    before = checkpoint.get(NAME, now)
    changed = [
        f"{name} was {before[name]} and is {now[name]}" for name in now if name in before and before[name] != now[name]
    ]
    if changed:
        raise CheckpointError(
            f"the checkpoint to go on from was written with other settings: {'; '.join(changed)}. Go on with the "
            "settings that it was written with, or start afresh with the new ones: in another folder, by "
            "`psr run --redo STAGE`, or without `ckpt_path`"
        )
