"""LightningCLI with what every stage of psr shares: links between model and data, and the config in the logs.

`psr fit|validate|test|predict` run a stage; `psr plan` parses one as `psr fit` would, and makes nothing of it.
"""

import logging
import os
import sys
import uuid
import warnings
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import torch
import wandb
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from psr.cli import classes  # noqa: F401 - so that configs may name them without their modules
from psr.cli.messages import essence, users
from psr.commands.plan import ARCHITECTURE, plan
from psr.data.switches import dev_run
from psr.errors import UsageError
from psr.files.whole import write_text
from psr.planning import Guess
from psr.policy.checkpoints import last_checkpoint
from psr.processes.stopping import Preempted, keyboard_interrupt


def stage(words: list[str]) -> None:
    """Run one LightningCLI subcommand."""
    try:
        PSRLightningCLI(args=words)
    except ArgumentError as error:
        raise UsageError(f"{essence(error)} (see `psr {words[0]} --help`)") from error
    except SIGTERMException as error:
        raise Preempted from error
    except SystemExit as error:
        if keyboard_interrupt(error):
            raise KeyboardInterrupt from error
        raise
    finally:
        end_wandb_run()


def planned(words: list[str]) -> None:
    """Print what a stage needs; the arguments are those of `psr fit`, and `--plan.*`."""
    try:
        config = PlanCLI(args=["fit", *words[1:]]).config["fit"]
    except ArgumentError as error:
        raise UsageError(f"{essence(error)} (see `psr plan --help`)") from error
    plan(config)


def rehearse_stage(words: list[str]) -> None:
    """Parse a stage's command line and make model, data and trainer; nothing is run."""
    logging.disable(logging.INFO)  # that a seed is set, for every one
    try:
        RehearsalCLI(args=words)
    except ArgumentError as error:
        raise UsageError(f"{essence(error)} (see `psr {words[0]} --help`)") from error
    finally:
        logging.disable(logging.NOTSET)


class LogConfig(SaveConfigCallback):
    """Writes the stage's whole config beside its logs and sends it to every logger. Rank 0 only, no collectives."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = Path(trainer.default_root_dir)
        write_text(folder / f"{TrainerFn(stage).value}.yaml", self.parser.dump(self.config, skip_none=False))
        for logger in trainer.loggers:
            logger.log_hyperparams({"config": self.config.as_dict()})


@rank_zero_only
def run_id(folder: Path) -> str:
    """The id of the W&B run of a folder, made when first asked for. Ranks that do not log have none."""
    path = folder / "wandb-run-id"
    if not path.is_file():
        write_text(path, uuid.uuid4().hex[:8])
    return path.read_text()


def end_wandb_run() -> None:
    """So that the next stage in this process, or a restart that shares its W&B service, begins a run of its own."""
    if wandb.run is not None and "WANDB_RUN_ID" not in os.environ:  # in a sweep, the stages of a trial are one run
        wandb.finish(exit_code=1 if sys.exc_info()[0] else 0)


class PSRLightningCLI(LightningCLI):
    """Model and data in subclass mode; the model's folder and the seed are given once."""

    def __init__(self, args: Any = None, **options: Any) -> None:
        # `psr run` calls stage after stage in one process, each with arguments of its own.
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        torch.set_flush_denormal(True)  # denormals slow small models down several times as their loss falls
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=LogConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            args=args,
            **options,
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(**kwargs, exit_on_error=False)  # `psr` prints the message, without the long usage

    def _keep_wandb_run(self) -> None:
        """A fit that is started again goes on with its W&B run: the run's id is kept beside the logs from the start."""
        if self.subcommand != "fit" or "WANDB_RUN_ID" in os.environ:  # as in a sweep, where the agent says which
            return
        trainer = self.config["fit"].trainer
        loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
        for logger in loggers:
            named = getattr(logger, "class_path", "").endswith("WandbLogger")
            if named and not logger.init_args.get("id") and not logger.init_args.get("version"):
                logger.init_args.id = run_id(Path(trainer.default_root_dir or "."))

    def instantiate_classes(self) -> None:
        self._keep_wandb_run()
        try:
            super().instantiate_classes()
        except ValueError as error:  # jsonargparse wraps the errors of classes that it makes
            raise users(error) or UsageError(essence(error)) from None

    def _parse_ckpt_path(self) -> None:
        """Leave the settings as given: Lightning would lay those of the checkpoint over them, and not say so."""

    def before_fit(self) -> None:
        """`ckpt_path: last` is the last checkpoint that is whole; a dev run begins at the beginning."""
        settings = self.config_init["fit"]
        if settings.ckpt_path != "last":
            return
        if dev_run(self.trainer):  # a finished fit would have nothing left to try
            settings.ckpt_path = None
        elif found := last_checkpoint(self.trainer):
            settings.ckpt_path = str(found)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("model.init_args.model", "data.init_args.model")
        parser.link_arguments("seed_everything", "data.init_args.seed")


class RehearsalCLI(PSRLightningCLI):
    """All of a stage up to its start."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


class PlanCLI(PSRLightningCLI):
    """All of `psr fit` up to the parsed config."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(Guess, "plan")
        parser.add_argument(
            "--architecture",
            type=Path | None,
            default=None,
            help=f"config.json of the model; if not given, that of its folder, else {ARCHITECTURE} beside a config",
        )

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass
