"""The report's tables as Markdown, for a paper or a README."""

from collections.abc import Sequence

from psr.report import by_model, settings
from psr.report.charts import Missing, Table
from psr.report.runs import Run
from psr.report.sections import sections


def build_markdown(runs: Sequence[Run]) -> str:
    """Every table of the report under its heading, and what was not measured."""
    items = [item for section in sections(runs) for item in section.items]
    tables = [item for item in items if isinstance(item, Table)]
    if len(runs) > 1:
        tables += [by_model.details(run, f"Every model of {run.name}") for run in runs]
    tables.append(settings.key_table(runs))
    missing = [f"- {item.title}: run `{item.command}`" for item in items if isinstance(item, Missing)]
    parts = [table_markdown(table) for table in tables]
    if missing:
        parts.append("\n".join(["## Not measured", "", *missing]))
    return "\n\n".join(parts) + "\n"


def table_markdown(table: Table) -> str:
    """Words to the left, numbers to the right."""
    ruler = ["---" if table.holds_words(column) else "---:" for column in range(len(table.header))]
    lines = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (table.header, ruler, *table.rows)
    ]
    return "\n".join([f"## {table.title}", "", *lines, "", table.caption])
