"""The README's picture: accuracy by iteration beside a searched tree.

    python benchmarks/overview.py --run runs/quickstart --out benchmarks/results/overview.png

Reads the figures of benchmarks/results/quickstart.json, and of the run the traces that made M2; draws the finished
problem whose steps had the most different candidates.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from psr.records import StepNode, Trajectory, trajectory_from_json
from psr.run.folder import RunFolder

RESULTS = Path(__file__).parent / "results" / "quickstart.json"
GREEN, RED, GREY = "#1a7f37", "#b35900", "#8c959f"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"), help="run directory of the quickstart")
    parser.add_argument("--out", type=Path, default=RESULTS.with_name("overview.png"), help="picture to write")
    options = parser.parse_args()
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    accuracy, tree = figure.subplots(1, 2, width_ratios=(2, 3))
    draw_accuracy(accuracy, json.loads(RESULTS.read_text()))
    traces = [trajectory_from_json(line) for line in RunFolder(options.run).traces(2).read_bytes().splitlines()]
    draw_tree(tree, max((one for one in traces if one.finished), key=variety))
    figure.savefig(options.out, dpi=110)
    print(options.out)


def draw_accuracy(axes: Axes, results: list[dict[str, Any]]) -> None:
    """A line per seed: with the policy's own verdicts, and with random ones."""
    for judge, colour, text in (("self", GREEN, "its own verdicts"), ("random", GREY, "random verdicts")):
        runs = [one for one in results if one["judge"] == judge and not one["overlay"]]
        for nth, run in enumerate(runs):
            names = [model["name"] for model in run["models"]]
            values = [100 * model["accuracy"] for model in run["models"]]
            axes.plot(names, values, color=colour, marker="o", alpha=0.75, label=text if nth == 0 else None)
    axes.set(ylim=(0, 103), ylabel="greedy accuracy, %", title="Accuracy of four models in a row, four seeds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")


def variety(trajectory: Trajectory) -> int:
    """How many different candidates the steps had, where no step had more than the picture has room for."""
    counts = [len({one.text for one in node.candidates}) for node in trajectory.kept]
    return sum(counts) if max(counts) <= 4 and min(counts) > 1 else 0


def draw_tree(axes: Axes, trajectory: Trajectory) -> None:
    """A column per step, with every different candidate: how often it was sampled, and how many others it beat."""
    axes.set_title(f"How M1 searched {trajectory.problem.problem}")
    axes.axis("off")
    before = (-0.62, 0.0)
    for column, node in enumerate(trajectory.kept):
        chosen = node.candidates[node.chosen].text
        ordered = sorted(Counter(one.text for one in node.candidates).items(), key=lambda item: item[0] != chosen)
        for row, (text, times) in enumerate(ordered):
            place = (float(column), float(-row))
            colour = colour_of(node, text)
            axes.plot(*zip(before, place, strict=True), color=colour, linewidth=2.2 if text == chosen else 1, zorder=1)
            box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": colour}
            axes.text(
                *place, label_of(node, text, times), ha="center", va="center", fontsize=8.5, color=colour, bbox=box
            )
        before = (float(column), 0.0)
    axes.set(xlim=(-0.65, len(trajectory.kept) - 0.45), ylim=(-2.9, 0.6))
    legend = "green: chosen    orange: rejected, the other half of the step's pair    ×n: sampled n times"
    axes.text(-0.6, -2.8, legend, fontsize=8.5, color=GREY)


def colour_of(node: StepNode, text: str) -> str:
    if text == node.candidates[node.chosen].text:
        return GREEN
    return RED if text == node.candidates[node.rejected].text else GREY


def label_of(node: StepNode, text: str, times: int) -> str:
    score = next(score for one, score in zip(node.candidates, node.scores, strict=True) if one.text == text)
    step = text.strip().replace(" ", "\n").replace("\\", "")  # the answer's box goes below its step
    return f"{step}\n×{times}, {score} wins"


if __name__ == "__main__":
    main()
