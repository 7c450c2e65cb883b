"""Run folders for the tests of the report: a made one of real records, with all that is hard, and an excerpt of a real
run of the quickstart (seed 2: three problems an iteration, every twelfth optimizer step)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger

from psr.data.traces import TraceJournal
from psr.engines.usage import Usage
from psr.files.jsonl import write_json
from psr.records import Candidate, Judgement, Problem, StepNode, Trajectory, step_pairs
from psr.run.folder import RunFolder, add_search, add_seconds
from psr.run.results import put_model, start_results
from psr.search.judges import scores
from psr.search.statistics import search_summary, tally, total
from psr.sweeps.results import write_sweep

EXCERPT = Path(__file__).parent / "excerpt"
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)> & $x<1$"
"""A step as a model may write it that has seen much of the web."""

MakeRun = Callable[..., Path]


def step(text: str, final: bool = False) -> Candidate:
    return Candidate(tuple(text.encode()), text, -0.5, final)


def node(depth: int, texts: Sequence[str], verdicts: Sequence[Judgement], event: str, final: bool = False) -> StepNode:
    candidates = tuple(step(text, final) for text in texts)
    wins = scores(candidates, verdicts)
    best, worst = wins.index(max(wins)), wins.index(min(wins))
    return StepNode(depth, candidates, tuple(verdicts), wins, best, worst, event)  # type: ignore[arg-type]


def hard_search(number: int) -> Trajectory:
    """Step 1 is taken back after a tie at step 2, then done otherwise; formulas, broken ones and HTML in the texts."""
    first = [Judgement(0, 1, 0, "the first is $\\frac{1}{2}$ [[A]]"), Judgement(1, 0, 0, "again [[B]]")]
    tie = [Judgement(0, 1, 0, "[[A]]"), Judgement(1, 0, 1, "[[A]]")]
    last = [Judgement(0, 1, 1, HOSTILE), Judgement(1, 0, 1, "[[A]]"), Judgement(0, 2, None, "no verdict")]
    nodes = (
        node(0, ["Step 1: Let $x=\\frac{1}{2}$.\n", "Step 1: Let $x=2$.\n"], first, "rolled_back"),
        node(1, ["Step 2: $\\frac{1}{$ is broken.\n", "Step 2: So $x^2=1$.\n"], tie, "tied"),
        node(0, [f"Step 1: {HOSTILE}\n", "Step 1: Then $x^2+1=5$.\n", "Step 1: Guess.\n"], last, "kept"),
        node(1, ["Step 2: Hence \\boxed{5}.", "Step 2: Hence \\boxed{5}."], [], "kept", final=True),
    )
    problem = Problem(f"hard/{number}", f"Problem {number}: what is $x^2+1$ for \\(x=2\\), if pens cost $5 and $10?")
    return Trajectory(problem, (1, 2), nodes, True, "M1", 0.5)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """(name, recipe=, seed=, gain=, analyses=, problems=, settings=) -> folder of a run that made M1 to M3."""

    def make(name: str = "run", recipe: str = "made", seed: int = 0, gain: float = 0.2, **more: Any) -> Path:
        run = RunFolder(tmp_path / name)
        write_json(run.root / "run.json", {"recipe": recipe, "seed": seed, "judge": "self", "overlay": None})
        start_results(run.results, recipe, seed, "self")
        for number in (1, 2, 3):
            accuracy = 0.5 + gain * (number - 1) + 0.01 * seed
            add_entry(run, number, accuracy, more.get("problems", 4))
        log_training(run.root, steps=[10, 100])
        settings = {"seed_everything": seed, "data": {"init_args": {"problems_per_iteration": [4, 4], "batch_size": 8}}}
        settings["model"] = {"init_args": {"lr": 1e-5, "lora": None, **more.get("settings", {})}}
        path = run.root / "self_rewarding" / "fit.yaml"
        path.write_text(yaml.safe_dump(settings))
        for analysis, found in more.get("analyses", {}).items():
            write_json(run.analysis(analysis), {"schema": 1, **found})
        return run.root

    return make


def add_entry(run: RunFolder, number: int, accuracy: float, problems: int) -> None:
    """Search and results of M`number`, as the loop and its callbacks write them."""
    folder, searched = run.iteration(number), {}
    if number > 1:
        journal = TraceJournal(run.traces(number), "M1")
        for i in range(problems):
            journal.append(hard_search(i))
        found = list(journal.trajectories.values())
        searched = search_summary(total(map(tally, found)), sum(len(step_pairs(one)) for one in found))
        write_json(folder / "search.json", searched)
        add_search(folder, {"candidates": Usage(40, 4000, 1000, 2000, 30.0)}, 10.0)
    add_seconds(folder, "train", 60.0)
    judge = {"judge_accuracy": 0.9, "judge_consistency": 0.85, "judge_position_bias": -0.01}
    entry = {"name": f"M{number}", "accuracy": accuracy, "graded": 100, "search_accuracy": 0.9, **judge}
    entry |= {"steps_per_solution": 2.0, "step_length_tokens": 11.0, "pairs": searched.get("pairs", 0)}
    put_model(run.results, {**entry, "search": searched, "seconds": {"search": 10.0, "train": 60.0}})


def log_training(root: Path, steps: Sequence[int]) -> None:
    """`steps` optimizer steps of every iteration in the CSV log; the margin of iteration e at step i is e + i."""
    logger = CSVLogger(str(root / "self_rewarding"), name="logs")
    total = 0
    for epoch, count in enumerate(steps):
        for i in range(count):
            row = {"train/margin": epoch + i, "train/reward_chosen": 0.1, "train/reward_rejected": -0.1, "epoch": epoch}
            logger.log_metrics({**row, "train/accuracy": 0.75, "train/kl_to_reference": 0.01}, step=total)
            total += 1
    logger.save()


ANALYSES: dict[str, dict[str, Any]] = {
    "evaluation": {
        "results": [
            {"model": model, "benchmark": "test", "method": method, "width": width, "problems": 20, "graded": 20}
            | {"no_gold": [], "accuracy": 0.65, "no_box": 0.25, "average": average}
            for model in ("M1", "M2")
            for method, width, average in (("greedy", 1, None), ("majority", 4, 0.6))
        ]
    },
    "comparison": {
        "comparisons": [
            {"a": "M1", "b": "M2", "benchmark": "test", "method": "greedy", "problems": 20, "difference": -0.05}
            | {"low": -0.2, "high": 0.1, "level": 0.95, "only_a": 3, "only_b": 2}
        ]
    },
    "judge": {
        "pairs": 20,
        "judges": [
            {"model": "M0", "form": "pairwise", "shots": 3, "accuracy": 0.5}
            | {"consistency": 0.4, "position_bias": 0.125, "length_bias": None, "unparsable": 0.3}
        ],
    },
    "steps": {"models": [{"model": "M1", "benchmark": "test", "histogram": {"4": 30, "3": 10, "12": 10}}]},
    "scaling": {
        "points": [
            {"model": model, "benchmark": "test", "method": method, "width": width, "graded": 20, "problems": 20}
            | {"accuracy": 0.4 + 0.05 * width, "generated_tokens": 40.0 * width}
            for model in ("M1", "M2")
            for method, widths in (("greedy", [1]), ("step", [4, 1, 2]))
            for width in widths
        ]
    },
    "scoring": {
        "judges": [
            {"model": "M1", "form": "score", "consistency": 0.7, "agreement": 0.6, "tied": 0.2, "unparsable": 0.0}
            | {"questions": 40, "generated_tokens": 12345}
        ]
    },
    "distribution": {
        "embedding": "wordllama",
        "perplexity": 30.0,
        "points": [
            {"set": name, "part": part, "x": x / 10, "y": -x / 10}
            for part in ("prompt", "response")
            for name in ("IFT", "EFT", "PPD")
            for x in range(5)
        ],
        "separation": {"prompt": {"IFT-EFT": 0.94}, "response": {"IFT-EFT": 1.0}},
    },
}


@pytest.fixture
def measured_run(make_run: MakeRun) -> Path:
    """A run with all that the analyses write, and a sweep."""
    folder = make_run("measured", analyses=ANALYSES)
    write_sweep(folder, "beta-and-lr", SWEEP)
    return folder


def tried(number: int, state: str, values: Sequence[float], lr: float, width: int) -> dict[str, Any]:
    settings = {"model.lr": lr, "loss.lr": 0.1, "data.search.width": width}
    by_iteration = {f"M{i + 2}": value for i, value in enumerate(values)}
    return {
        "number": number,
        "state": state,
        "value": values[-1] if state == "complete" else None,
        "by_iteration": by_iteration,
        "settings": settings,
    }


SWEEP: dict[str, Any] = {
    "metric": "accuracy",
    "maximize": True,
    "trials": [
        tried(0, "complete", (0.8, 0.9), 2.3456e-6, 6),
        tried(1, "pruned", (0.6,), 5e-5, 4),
        tried(2, "complete", (0.7, 0.912), 1e-5, 4),
        tried(3, "fail", (), 5e-6, 6),
    ],
}
