"""The settings of the runs: the few that matter most, those that differ between runs, and all of them."""

from collections.abc import Sequence
from typing import Any

from psr.report.charts import Table
from psr.report.runs import LOOP, Run, loop_settings

KEY_SETTINGS = {
    "problems per iteration": LOOP,
    "candidates per step": "data.init_args.search.width",
    "temperature": "data.init_args.search.temperature",
    "nucleus (top p)": "data.init_args.search.top_p",
    "expansions per problem": "data.init_args.search.max_iterations",
    "ties": "data.init_args.search.ties",
    "judge": "data.init_args.judge.kind",
    "verdicts": "data.init_args.judge.verdicts",
    "orders of a pair": "data.init_args.judge.orders",
    "margin of a pair": "data.init_args.min_margin",
    "loss": "model.init_args.loss.class_path",
    "beta": "model.init_args.loss.init_args.beta",
    "reference": "model.init_args.reference",
    "learning rate": "model.init_args.lr",
    "pairs per optimizer step": "data.init_args.batch_size",
    "engine": "data.init_args.engine.class_path",
    "seed": "seed_everything",
}


def written(value: Any) -> str:
    """As in the YAML, without brackets around a list of plain values."""
    if isinstance(value, list):
        return ", ".join(map(written, value))
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value)


def key_table(runs: Sequence[Run]) -> Table:
    """A row per setting, a column per run; settings that no run has are left out."""
    found = [loop_settings(run.settings) for run in runs]
    rows = [
        (label, *(cell(settings, name) for settings in found))
        for label, name in KEY_SETTINGS.items()
        if any(name in settings for settings in found)
    ]
    header = ("setting", *(run.name for run in runs))
    return Table("key-settings", "Key settings", "Of the self-rewarding stage.", header, tuple(rows))


def cell(settings: dict[str, Any], name: str) -> str:
    """The value of a setting; for a class, only its name."""
    text = written(settings[name]) if name in settings else "–"
    return text.rpartition(".")[2] if name.endswith("class_path") else text


def differences(runs: Sequence[Run]) -> Table | None:
    """Settings in which the runs differ, by stage; None if they do not, or if there is only one run."""
    rows = []
    for stage in dict.fromkeys(stage for run in runs for stage in run.settings):
        found = [run.settings.get(stage, {}) for run in runs]
        for name in dict.fromkeys(name for settings in found for name in settings):
            values = [written(settings[name]) if name in settings else "–" for settings in found]
            if len(set(values)) > 1:
                rows.append((f"{stage}: {name}", *values))
    header = ("setting", *(run.name for run in runs))
    caption = "Every resolved setting that is not the same in all runs."
    return Table("differences", "What differs", caption, header, tuple(rows)) if rows else None
