"""The classes that settings may name without their module, as in `--model StepDPOModule`.

jsonargparse knows a class by its short name once it is imported: importing this module imports them all.
"""
# ruff: noqa: F401 - imported to be known

import inspect

from lightning import Callback, LightningDataModule, LightningModule
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy

import callbacks.engine_gap
import callbacks.evaluation
import callbacks.gate
import callbacks.preemption
import callbacks.report_figures
import callbacks.search_table
import callbacks.self_rewarding_loop
import callbacks.stage_progress
import psr.data.benchmark
import psr.data.prm
import psr.data.self_rewarding
import psr.data.sft
import psr.engines.local
import psr.engines.sglang
import psr.modules.prm
import psr.modules.sft
import psr.modules.solver
import psr.modules.step_dpo
import psr.policy.sharding
from psr.engines.base import Engine
from psr.modules.losses import PreferenceLoss
from psr.modules.training import RowModule

KINDS: dict[str, type] = {
    "model": LightningModule,
    "data": LightningDataModule,
    "engine": Engine,
    "loss": PreferenceLoss,
    "callbacks": Callback,
    "logger": Logger,
    "strategy": Strategy,
}
"""By the last part of a setting's name: what its value must be a subclass of."""
ROOMS = ("callbacks.", "psr.data.", "psr.engines.", "psr.modules.", "psr.policy.", "lightning.pytorch.")


def names_of(kind: type) -> list[str]:
    """The names of the concrete public subclasses of psr and Lightning, ours first."""
    modules = (
        "callbacks.",
        "lightning.pytorch.",
        *(f"psr.{room}." for room in ("data", "engines", "modules", "policy")),
    )
    found = [one for one in _subclasses(kind) if one.__module__.startswith(modules)]
    public = [one for one in found if not one.__name__.startswith("_") and not inspect.isabstract(one)]
    public = [one for one in public if one is not RowModule]  # what the trained modules share
    return list(dict.fromkeys(one.__name__ for one in sorted(public, key=lambda one: (_theirs(one), one.__name__))))


def _subclasses(kind: type) -> list[type]:
    children: list[type] = kind.__subclasses__()
    return [one for child in children for one in (child, *_subclasses(child))]


def _theirs(one: type) -> bool:
    return one.__module__.startswith("lightning.")
