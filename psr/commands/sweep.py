"""`psr sweep FILE`: runs the trials of a W&B sweep file on this machine; started again, it resumes."""

from pathlib import Path

from psr.errors import UsageError


def sweep(file: Path, base: Path, trials: int | None = None, workers: int = 1, seed: int = 0) -> None:
    """Run the missing trials of a sweep, then print its table.

    Args:
        file: sweep file in W&B's format; its command gets the name of a trial's folder by WANDB_RUN_ID.
        base: run directory whose `trials` hold the trials, as the file's command says; most start from what is in it.
        trials: number of trials in all; by default the `run_cap` of the file, or all points of a grid.
        workers: trials at the same time.
        seed: seed of the sampler.
    """
    try:
        from psr.sweeps.file import read_sweep
        from psr.sweeps.runner import run_sweep
    except ImportError as error:
        raise UsageError(f"{error}: sweeps need `pip install 'psr[sweep]'`") from None
    if workers < 1:
        raise UsageError(f"workers is {workers}: it must be at least 1")
    spec = read_sweep(file)
    if (wanted := spec.trials(trials)) is None:
        raise UsageError(f"{file} has no run_cap: say with --trials how many trials there shall be")
    run_sweep(spec, base.resolve(), wanted, workers, seed)
