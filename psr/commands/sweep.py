"""`psr sweep FILE`: runs the trials of a W&B sweep file on this machine; started again, it resumes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from psr.bounds import Count, Seed, bounded
from psr.errors import UsageError


@bounded()
def sweep(
    file: Path,
    base: Path,
    trials: Count | None = None,
    workers: Count = 1,
    seed: Seed = 0,
    check: bool = True,
    *,
    rehearse: Callable[[list[str]], Any],
) -> None:
    """Run the missing trials of a sweep, then print its table.

    Args:
        file: sweep file in W&B's format; its command gets the name of a trial's folder by WANDB_RUN_ID.
        base: run directory whose `trials` hold the trials, as the file's command says; most start from what is in it.
        trials: number of trials in all; by default the `run_cap` of the file, or all points of a grid.
        workers: trials at the same time.
        seed: seed of the sampler.
        check: before the first trial, see whether the settings of all can be run.
        rehearse: parses a command line and makes its objects; the command line hands it over.
    """
    try:
        from psr.commands.sweep_check import check_trials
        from psr.sweeps.file import read_sweep
        from psr.sweeps.runner import run_sweep
    except ImportError as error:
        raise UsageError(f"{error}: sweeps need `pip install 'psr[sweep]'`") from None
    spec = read_sweep(file)
    if (wanted := spec.trials(trials)) is None:
        raise UsageError(f"{file} has no run_cap: say with --trials how many trials there shall be")
    if check:
        check_trials(spec, base.resolve(), rehearse)
    run_sweep(spec, base.resolve(), wanted, workers, seed)
