"""The trials of a sweep on this machine, with Optuna.

The study is an SQLite file beside the trials. A trial reports its metric after every iteration of the loop, and is
pruned if it is worse than the median of the others at that iteration. If the sweep is killed, its running trials end
with it; started again, it resumes them in their folders.

Knows processes, run folders and studies. Does not know what a trial does.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Any

import optuna
from optuna.trial import Trial, TrialState
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from psr.errors import UsageError
from psr.processes import guard
from psr.processes.stopping import PREEMPTED
from psr.run.folder import RunFolder
from psr.run.results import read_results
from psr.sweeps.file import Sweep, command_line
from psr.sweeps.results import Results, best_first, short_names, write_sweep, written

POLL = 1.0
"""Seconds between two polls of a trial."""
PATIENCE = 20.0
"""Seconds that a trial gets to shut down."""


def run_sweep(spec: Sweep, base: Path, trials: int, workers: int, seed: int) -> None:
    """Run what is missing of `trials` trials, `workers` at a time, then print the table and write it as JSON."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials_folder = RunFolder(base).trials
    trials_folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{trials_folder / spec.name}.db",
        study_name=spec.name,
        direction="maximize" if spec.maximize else "minimize",
        pruner=spec.pruner(),
        load_if_exists=True,
    )
    runner = Runner(spec, study, base, trials, seed)
    runner.run(workers)
    results = runner.note()
    Console().print(table(spec.name, results))
    if failed := [one.number for one in runner.tried() if one.state == TrialState.FAIL]:
        raise UsageError(
            f"{len(failed)} of {trials} trials failed, the first of them as "
            f"{log_file(base, spec, failed[0])} says. Started again, the sweep makes up for them"
        )


def log_file(base: Path, spec: Sweep, number: int) -> Path:
    return RunFolder(base).trials / f"{spec.name}-{number:03d}" / "log.txt"


class Runner:
    """Starts trials, watches them, and tells the study how they ended."""

    def __init__(self, spec: Sweep, study: optuna.Study, base: Path, trials: int, seed: int) -> None:
        self.spec, self.study, self.base, self.trials, self.seed = spec, study, base, trials, seed
        self.lock, self.stopped = Lock(), Event()
        self.failed_before = [one.number for one in study.get_trials(states=[TrialState.FAIL])]
        # Still RUNNING in the study: an earlier process was killed before it could tell how they ended.
        unfinished = study.get_trials(states=[TrialState.RUNNING])
        self.waiting = [Trial(study, one._trial_id) for one in unfinished]

    def run(self, workers: int) -> None:
        """Run all missing trials, `workers` at a time."""
        with ThreadPoolExecutor(workers) as pool:
            # Resumed trials are among `tried`, so they come on top of those that do not exist yet.
            missing = max(0, self.trials - len(self.tried())) + len(self.waiting)
            jobs = [pool.submit(self.one) for _ in range(missing)]
            try:
                for job in jobs:
                    job.result()
            except BaseException:  # Ctrl-C or a failure here: the processes end, and their trials go on the next time
                self.stopped.set()
                pool.shutdown(cancel_futures=True)
                raise

    def one(self) -> None:
        """Run one trial, new or resumed, to its end."""
        with self.lock:  # one at a time: what is sampled depends on the number of trials so far, and on their results
            trial = self.waiting.pop(0) if self.waiting else self.ask()
            # For a resumed trial Optuna returns the values that it was given before.
            values = {name: trial._suggest(name, choices) for name, choices in self.spec.space.items()}
        log = log_file(self.base, self.spec, trial.number)
        folder = log.parent
        folder.mkdir(exist_ok=True)
        process = start(command_line(self.spec.command, values, sys.executable), folder.name, log)
        try:
            pruned = self.watch(trial, process, folder)
        finally:
            end(process)
        measured = self.measured(folder)
        # A trial that was preempted, or stopped with the sweep, gets no verdict: it stays RUNNING and is resumed.
        if pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        elif process.returncode == 0 and measured:
            self.study.tell(trial, measured[max(measured)])
        elif not self.stopped.is_set() and process.returncode != PREEMPTED:
            self.study.tell(trial, state=TrialState.FAIL)
        self.note()

    def note(self) -> Results:
        """Write the results of all trials so far."""
        rows = [row(one) for one in self.study.trials]
        results = {"metric": self.spec.metric, "maximize": self.spec.maximize, "trials": rows}
        with self.lock:
            write_sweep(self.base, self.spec.name, results)
        return results

    def ask(self) -> Trial:
        """A new trial. What is sampled depends on its number, not on how often the sweep was restarted before it."""
        if self.spec.method == "grid":
            tried = [one.params for one in self.tried()]
            self.study.enqueue_trial(next(point for point in self.spec.points() if point not in tried))
        else:
            self.study.sampler = self.spec.sampler(self.seed + len(self.study.trials), self.trials)
        return self.study.ask()

    def tried(self) -> list[optuna.trial.FrozenTrial]:
        """All trials but those that had failed before this process, which are replaced by new ones."""
        return [one for one in self.study.trials if one.number not in self.failed_before]

    def watch(self, trial: Trial, process: subprocess.Popen[bytes], folder: Path) -> bool:
        """Report what the trial measures until it ends; whether it is to be pruned."""
        # A resumed trial has reported some steps before, and Optuna warns of a second report.
        reported = set(self.study._storage.get_trial(trial._trial_id).intermediate_values)
        while True:
            running = process.poll() is None  # before reading: what it wrote just before its end is reported, too
            for step, value in self.measured(folder).items():
                if step not in reported:
                    reported.add(step)
                    trial.report(value, step)
                    if running and trial.should_prune():
                        return True
            if not running or self.stopped.is_set():
                return False
            time.sleep(POLL)

    def measured(self, folder: Path) -> dict[int, float]:
        """The metric of every model after M1 that the trial has evaluated, by its number."""
        models = read_results(RunFolder(folder).results)["models"]
        values = {int(model["name"][1:]): model.get(self.spec.metric) for model in models}
        return {number: value for number, value in values.items() if number > 1 and value is not None}


def start(command: list[str], name: str, log: Path) -> subprocess.Popen[bytes]:
    """Start a trial's process, in a process group of its own, which ends with this process; its W&B id is `name`."""
    guarded = [sys.executable, "-I", guard.__file__, str(PATIENCE), *command]
    environment = {**os.environ, "WANDB_RUN_ID": name}
    with log.open("ab") as file:
        return subprocess.Popen(
            guarded, stdin=subprocess.PIPE, stdout=file, stderr=file, env=environment, start_new_session=True
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """End the trial's process and all that it started; returns at once if it has ended already."""
    assert process.stdin is not None
    process.stdin.close()  # the guard takes this for the end of our process
    process.wait()


def row(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """A trial as JSON."""
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value if trial.state == TrialState.COMPLETE else None,  # Optuna gives pruned trials their last
        "by_iteration": {f"M{step}": value for step, value in sorted(trial.intermediate_values.items())},
        "settings": trial.params,
    }


def table(name: str, results: Results) -> Table:
    """The table of trials, best first."""
    short = short_names(results)
    shown = Table("trial", "state", results["metric"], *short.values(), title=name, box=SIMPLE_HEAD)
    for one in best_first(results):
        cells = (written(one["settings"].get(setting)) for setting in short)
        shown.add_row(str(one["number"]), one["state"], written(one["value"]), *cells)
    return shown
