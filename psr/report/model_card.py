"""The model card of a run's model, as the Hugging Face hub reads it: how it was made, from what, and what it reached.

Knows runs and Markdown. Says nothing that the run's files do not say: a licence above all has to be named.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psr.errors import UsageError
from psr.report import analyses, by_model, settings
from psr.report.charts import Table
from psr.report.markdown import table_markdown
from psr.report.runs import Run, loop_settings

PAPER = "[Process-based Self-Rewarding Language Models](https://arxiv.org/abs/2503.03746)"


@dataclass(frozen=True)
class CardFields:
    """What the files of a run cannot say.

    Args:
        license: the hub's identifier of the licence, as in "apache-2.0"; "other" needs the two that follow.
        license_name: the name of another licence.
        license_link: where its text is.
        base_model: the hub's name of the model that the run started from; a model of random weights has none.
        datasets: the hub's names of the data sets.
        language: of problems and solutions.
    """

    license: str = "unknown"
    license_name: str | None = None
    license_link: str | None = None
    base_model: str | None = None
    datasets: list[str] = field(default_factory=list)
    language: list[str] = field(default_factory=lambda: ["en"])

    def __post_init__(self) -> None:
        if self.license == "other" and not (self.license_name and self.license_link):
            raise UsageError("license is 'other': name it with --license_name, and its text with --license_link")


def build_card(run: Run, name: str, fields: CardFields) -> str:
    """The card as Markdown, with its metadata. Raises UsageError where the run has not measured the model `name`."""
    loop = loop_settings(run.settings)
    parts = {
        "How it was made": made(run, name),
        "How to ask it": asking(loop),
        "Results": results(run),
        "Data": data(run, fields),
        "Settings": table_lines(settings.key_table([run])),
        "Licence": licence(fields),
        "Limits": limits(run),
    }
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in parts.items() if body)
    return f"---\n{metadata(run, name, fields)}---\n\n# {title_of(run, name)}\n\n{text}\n"


def title_of(run: Run, name: str) -> str:
    return f"{run.results.get('recipe', run.name)} {name}"


def entry_of(run: Run, name: str) -> dict[str, Any]:
    found = {model["name"]: model for model in run.models}
    if name not in found:
        raise UsageError(f"model is {name!r}: the run {run.name} has measured {', '.join(found)}")
    return found[name]


def metadata(run: Run, name: str, fields: CardFields) -> str:
    """The YAML at the top, as huggingface_hub writes it."""
    from huggingface_hub import EvalResult, ModelCardData

    model = entry_of(run, name)
    measured = {"accuracy": "greedy accuracy", "search_accuracy": "accuracy with self-judged search"}
    return (
        ModelCardData(
            license=fields.license,
            license_name=fields.license_name,
            license_link=fields.license_link,
            language=fields.language,
            base_model=fields.base_model,
            datasets=fields.datasets or None,
            library_name="transformers",
            pipeline_tag="text-generation",
            tags=["process-based-self-rewarding", "step-dpo"],
            model_name=title_of(run, name),
            eval_results=[
                EvalResult(
                    task_type="text-generation",
                    dataset_type="held-out",
                    dataset_name="held-out problems of the run",
                    metric_type="accuracy",
                    metric_name=what,
                    metric_value=round(model[field], 4),
                )
                for field, what in measured.items()
                if model.get(field) is not None
            ],
        ).to_yaml()
        + "\n"
    )


def made(run: Run, name: str) -> str:
    before = [model for model in run.models if int(model["name"][1:]) <= int(name[1:])]
    searched = sum(model["search"].get("problems", 0) for model in before)
    pairs = sum(model["pairs"] for model in before)
    after = f"It was made from {searched:,} searched problems and {pairs:,} step pairs"
    if name == "M1":
        after = "It is the supervised model that the iterations begin with"
    seed, judge = run.results.get("seed"), run.results.get("judge")
    return (
        f"{PAPER}: in every iteration the model searches problems step by step, candidates for each step are judged in "
        f"pairs, and it is trained on the judgements by step-wise DPO. {after}. Seed {seed}, judge {judge}."
    )


def limits(run: Run) -> str:
    judged = {
        "self": "The model was its own judge: what it prefers is what it was trained towards, mistakes included.",
        "random": "Its judge tossed coins: it is a floor to compare with, and not to be used.",
        "verifier": "Its judge was an exact verifier, which there is for made-up problems alone.",
    }
    figures = "The figures are of the problems they were measured on. A right answer does not make every step right."
    return " ".join(filter(None, [judged.get(str(run.results.get("judge"))), figures]))


def asking(loop: dict[str, Any]) -> str:
    """The template of a problem, without which the model's steps and answers are not what was measured."""
    template = loop.get("data.init_args.prompts.reason")
    if template is None:
        return ""
    chat = "as one user message in the chat template" if loop.get("data.init_args.prompts.chat") else "as plain text"
    end = ", line break at its end included" if template.endswith("\n") else ""
    return f"This prompt, {chat}{end}; the answer is in the last `\\boxed{{}}`.\n\n{fenced(template)}"


def fenced(text: str) -> str:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def results(run: Run) -> str:
    found = [by_model.details(run), analyses.benchmarks([run])]
    return "\n\n".join(table_lines(item) for item in found if isinstance(item, Table))


def data(run: Run, fields: CardFields) -> str:
    """The files that the fits read, by their names in the run and with their rows; and the hub's names."""
    files: dict[str, str] = {}
    for name, what in FILES.items():
        for stage, values in run.settings.items():
            named = values.get(f"data.init_args.{name}", [])
            for path in [named] if isinstance(named, str) else named:
                files.setdefault(path, f"held-out {what}" if stage == "test" else what)
    lines = [f"- {what}: `{Path(path).name}`{rows_of(run.folder.root / path)}" for path, what in files.items()]
    lines += [f"- from [{name}](https://huggingface.co/datasets/{name})" for name in fields.datasets]
    return "\n".join(lines)


FILES = {
    "ift": "worked solutions",
    "eft": "judged pairs of steps",
    "scores": "scored responses",
    "problems": "problems",
}
"""What a stage's data module reads, by the name of the setting."""


def rows_of(path: Path) -> str:
    if path.suffix != ".jsonl" or not path.is_file():
        return ""
    with path.open("rb") as lines:
        return f", {sum(1 for _ in lines):,} rows"


def licence(fields: CardFields) -> str:
    if fields.license == "unknown":
        return "Not stated. That of the model and of the data it was made from applies."
    if fields.license == "other":
        return f"[{fields.license_name}]({fields.license_link})"
    return f"`{fields.license}`"


def table_lines(table: Table) -> str:
    """The table as Markdown, without its heading."""
    return table_markdown(table).partition("\n\n")[2]
