"""Silences what libraries say in a normal run that no reader can act on. Real warnings come through.

Knows their words only: a new release that says it differently is heard again, and nothing breaks.
"""

import logging
import os
import warnings

import wandb

NO_NEWS = ("💡 Tip:", "GPU available: False", "TPU available: False")
"""How messages of Lightning begin that advertise a product, or say that there is not what nobody asked for."""

INTENDED = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use of torch
    r"Total length of `.*` across ranks is zero",  # the validation loader of a stage that validates nothing
    r'\.fit\(ckpt_path="last"\) is set, but there is no last checkpoint',  # the first start of a resumable stage
)
"""How warnings begin that are about what a stage means to do, or that only a library's authors can mend."""


def quiet_libraries() -> None:
    """From now on, in this process. An offline W&B run has no address to tell, and says nothing."""
    for message in INTENDED:
        warnings.filterwarnings("ignore", message=message)
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    if has_news not in logger.filters:
        logger.addFilter(has_news)
    if os.environ.get("WANDB_MODE") == "offline":
        wandb.setup(wandb.Settings(silent=True))  # now, or the deprecations of Lightning's logger are told before it


def has_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(NO_NEWS)
