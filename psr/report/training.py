"""Training curves of step-wise DPO: margins, implicit rewards, accuracy, KL, from the metrics of every step."""

import statistics
from collections.abc import Sequence

from psr.report.by_model import groups, seeds
from psr.report.charts import Chart, Dash, Series
from psr.report.runs import Run

PARTS = 40
"""Number of points per iteration, each the mean of some optimizer steps."""


def part_means(run: Run, metric: str) -> dict[tuple[int, int], float]:
    """The mean of every part of every iteration, by (epoch, part): the same x for runs of different length."""
    by_epoch: dict[int, list[float]] = {}
    for row in run.steps:
        if metric in row:
            by_epoch.setdefault(int(row["epoch"]), []).append(row[metric])
    parts: dict[tuple[int, int], list[float]] = {}
    for epoch, values in by_epoch.items():
        for i, value in enumerate(values):
            parts.setdefault((epoch, PARTS * i // len(values)), []).append(value)
    return {place: statistics.mean(values) for place, values in parts.items()}


def line(members: Sequence[Run], metric: str, facet: str, dotted: bool) -> Series | None:
    """The mean over the runs of a group, with a gap between iterations; None if the metric was not logged."""
    found = [part_means(run, metric) for run in members]
    where: list[float] = []
    means: list[float | None] = []
    last = 0
    for epoch, part in sorted({place for means_of in found for place in means_of}):
        if epoch != last:
            where.append(epoch + 1.0)
            means.append(None)
        where.append(epoch + 1 + (part + 0.5) / PARTS)
        means.append(statistics.mean(means_of[epoch, part] for means_of in found if (epoch, part) in means_of))
        last = epoch
    if not where:
        return None
    number, name = members[0].group, members[0].label
    style: Dash = "dot" if dotted else "solid"
    return Series(name, tuple(where), tuple(means), colour=number, group=number, facet=facet, dash=style)


def training_chart(
    runs: Sequence[Run], key: str, title: str, caption: str, y_title: str, metrics: dict[str, str]
) -> Chart | None:
    """`metrics` are logged names by facet ("" for the only one), the second drawn dotted; None if none was logged."""
    lines = [
        line(members, metric, facet, dotted=i > 0)
        for _, members in groups(runs)
        for i, (facet, metric) in enumerate(metrics.items())
    ]
    series = [one for one in lines if one]
    if not series:
        return None
    if seeds(runs):
        caption += " Mean over the seeds."
    last = max(run.numbers[-1] for run in runs)
    ticks = tuple((float(number), f"M{number}") for number in range(1, last + 1))
    return Chart(key, title, caption, "from one model to the next", y_title, tuple(series), ticks=ticks)


def charts(runs: Sequence[Run]) -> list[Chart]:
    """The curves that the runs logged; every iteration starts anew, with a new reference."""
    found = [
        training_chart(
            runs,
            "margin",
            "Reward margin",
            "Implicit reward of the chosen step minus that of the rejected one, from zero in every iteration.",
            "margin",
            {"": "train/margin"},
        ),
        training_chart(
            runs,
            "rewards",
            "Implicit rewards",
            "β times the log-ratio of policy and reference. Both falling means that the chosen step loses as well.",
            "reward",
            {"chosen": "train/reward_chosen", "rejected": "train/reward_rejected"},
        ),
        training_chart(
            runs,
            "preference-accuracy",
            "Pairs put in order",
            "Share of the pairs of an optimizer step whose chosen side has the greater implicit reward.",
            "share of pairs",
            {"": "train/accuracy"},
        ),
        training_chart(
            runs,
            "kl",
            "Distance from the reference",
            "KL divergence from the reference policy, estimated on the pairs' own tokens.",
            "nats per token",
            {"": "train/kl_to_reference"},
        ),
    ]
    return [chart for chart in found if chart]
