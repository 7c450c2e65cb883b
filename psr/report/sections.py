"""The figures and tables of the report and their order, the same for the page, the images, W&B and Markdown."""

from collections.abc import Iterable, Sequence

from psr.report import analyses, by_model, cost, gate, side_by_side, sweeps, training
from psr.report.charts import Chart, Item, Section
from psr.report.runs import Run


def sections(runs: Sequence[Run]) -> list[Section]:
    """All sections; charts without a value are left out, and a Missing says how to get one."""
    tables: list[Item] = [by_model.results(runs)] if len(runs) > 1 else [by_model.details(runs[0])]
    if beside := side_by_side.table(runs):
        tables.append(beside)
    trained = training.charts(runs)
    made = [
        Section(
            "results",
            "Results",
            (
                by_model.accuracy(runs),
                by_model.search_accuracy(runs),
                *tables,
                analyses.benchmarks(runs),
                analyses.comparisons(runs),
            ),
        ),
        Section(
            "judge",
            "The judge",
            (
                by_model.judge_accuracy(runs),
                by_model.judge_consistency(runs),
                by_model.judge_position_bias(runs),
                by_model.agreement(runs),
                analyses.judges(runs),
                analyses.scoring(runs),
            ),
        ),
        Section("gate", "The gate", tuple(gate.items(runs))),
        Section(
            "steps",
            "Steps and pairs",
            (
                by_model.pairs(runs),
                by_model.roll_backs(runs),
                by_model.steps_per_solution(runs),
                by_model.step_length(runs),
                by_model.distinct(runs),
                analyses.step_histogram(runs),
            ),
        ),
        Section("training", "Training", tuple(trained)),
        Section("scaling", "Test-time scaling", (analyses.scaling(runs),)),
        Section("data", "Data", (analyses.distribution(runs, "prompt"), analyses.distribution(runs, "response"))),
        Section("sweeps", "Sweeps", tuple(sweeps.items(runs))),
        Section("cost", "Time and cost", tuple(cost.charts(runs))),
    ]
    return [Section(one.key, one.title, tuple(with_values(one.items))) for one in made]


def with_values(items: Iterable[Item]) -> Iterable[Item]:
    return (item for item in items if not isinstance(item, Chart) or any(series.y for series in item.series))


def charts(runs: Sequence[Run]) -> list[Chart]:
    """Every figure of the report, in order."""
    return [chart for section in sections(runs) for chart in section.charts]
