"""The layout of a run directory: the one place that knows the names of its files and folders."""

from dataclasses import dataclass
from pathlib import Path

from psr.engines.usage import Usage, add_usage, usage_figures, usage_from_json, usage_to_json
from psr.files.jsonl import read_json, write_json

SECONDS = "seconds.json"
USAGE = "usage.json"


@dataclass(frozen=True)
class RunFolder:
    """A run directory: `models/M1`.., `iterations/02/traces.jsonl`.. (the search that trains M2), `results.json`."""

    root: Path

    def model(self, number: int) -> Path:
        return self.root / "models" / f"M{number}"

    def iteration(self, number: int) -> Path:
        """The folder of the iteration that trains M`number`, and of that model's evaluation."""
        return self.root / "iterations" / f"{number:02d}"

    def traces(self, number: int) -> Path:
        return self.iteration(number) / "traces.jsonl"

    def pairs(self, number: int) -> Path:
        """The step pairs that train M`number`, as arrays; made of the traces anew at every start."""
        return self.iteration(number) / "pairs"

    def reference(self, number: int, rank: int = 0, ranks: int = 1) -> Path:
        """The reference log-probabilities of the step pairs that train M`number`, for the rows of this rank."""
        part = f"-{rank}-of-{ranks}" if ranks > 1 else ""
        return self.iteration(number) / f"reference{part}.safetensors"

    def probes(self, number: int) -> Path:
        """What M`number` writes for the gate's probe problems."""
        return self.iteration(number) / "probes.json"

    def gate(self, number: int) -> Path:
        """What the gate found when M`number` was to take over."""
        return self.iteration(number) / "gate.json"

    @property
    def trials(self) -> Path:
        """The trials of sweeps: a folder for each trial, a table and a study for each sweep."""
        return self.root / "trials"

    def analysis(self, name: str) -> Path:
        """The result of an analysis of the run's models, such as `analysis/judge.json`."""
        return self.root / "analysis" / f"{name}.json"

    @property
    def stages(self) -> Path:
        """What the stages were run with, and which are done."""
        return self.root / "stages.json"

    @property
    def progress(self) -> Path:
        """How far the phase under way is; only while the run is."""
        return self.root / "progress.json"

    @property
    def results(self) -> Path:
        return self.root / "results.json"


def add_seconds(folder: Path, part: str, seconds: float) -> None:
    """Add to the time that `part` of an iteration took, over all (re)starts.

    The parts are "search", "reference", "train", "export" (with loading into the engine), "gate" and "evaluate".
    """
    path = folder / SECONDS
    spent = read_json(path)
    write_json(path, {**spent, part: spent.get(part, 0.0) + seconds})


def set_seconds(folder: Path, parts: dict[str, float]) -> None:
    """Say how much time these parts of an iteration took in all."""
    write_json(folder / SECONDS, {**read_json(folder / SECONDS), **parts})


def add_search(folder: Path, usage: dict[str, Usage], seconds: float) -> None:
    """Add to the engine usage and the time of an iteration's search, over all (re)starts."""
    add_seconds(folder, "search", seconds)
    write_json(folder / USAGE, usage_to_json(add_usage(usage_from_json(read_json(folder / USAGE)), usage)))


def search_figures(folder: Path) -> dict[str, float | None]:
    """Rates, tokens and cache hits of an iteration's search; empty if nothing was searched.

    What another judge than the policy was asked is apart from the rest, as `judge_prompt_tokens` and so on.
    """
    usage = usage_from_json(read_json(folder / USAGE))
    if not usage:
        return {}
    judge, spent = usage.pop("judge", None), read_json(folder / SECONDS)["search"]
    figures = usage_figures(usage, spent)
    if judge is not None:
        figures |= {"judge_requests": judge.requests, "judge_prompt_tokens": judge.prompt_tokens}
        figures["judge_generated_tokens"] = judge.generated_tokens
    return figures
