"""`psr sweep FILE`: the trials of a W&B sweep file on this machine; started again it goes on."""

from pathlib import Path

from psr.errors import UsageError


def sweep(file: Path, base: Path, trials: int | None = None, workers: int = 1, seed: int = 0) -> None:
    """Run what is missing of a sweep, then print its table.

    Args:
        file: sweep file in W&B's format; its command gets the name of a trial's folder by WANDB_RUN_ID.
        base: run directory that the trials start from, the one that the file's command names.
        trials: stop at so many in all; `run_cap` of the file if not given.
        workers: trials at the same time.
        seed: seed of the sampler.
    """
    try:
        from psr.sweep_file import read_sweep
        from psr.sweep_runner import run_sweep
    except ImportError as error:
        raise UsageError(f"{error}: sweeps need `pip install 'psr[sweep]'`") from None
    spec, base = read_sweep(file), base.resolve()
    if not (base / "run.json").is_file():
        raise UsageError(f"base is {base}, which no `psr run` has made: run the recipe first, with --run-dir {base}")
    run_sweep(spec, base, trials or spec.trials, workers, seed)
