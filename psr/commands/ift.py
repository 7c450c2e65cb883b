"""`psr data problems` and `psr data ift`: problems and worked solutions from public sources."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from psr.bounds import Count, CountOrNone, Share, bounded
from psr.commands.annotating import ask_all, beside, read_benchmarks
from psr.curation.annotator.dry_run import estimate
from psr.curation.annotator.settings import Endpoint
from psr.curation.card import counted, lengths, table, write_card
from psr.curation.decontamination import without_benchmarks
from psr.curation.ift import BY_RULE, IFTData, Segmenter, take, usable
from psr.curation.segmenting import parse_steps
from psr.curation.sources import Source, limited, read_source
from psr.errors import UsageError
from psr.files.jsonl import write_jsonl
from psr.files.tables import write_table
from psr.prompts.templates import Prompts


@bounded()
def problems(
    source: str | Source, out: Path, benchmarks: list[str] | None = None, limit: Count | None = None, gold: bool = False
) -> None:
    """Write the problems of a source that no benchmark has, as `id`, `problem`.

    Args:
        source: short name (gsm8k, math, numinamath, math500, ...), file of rows, hub name, or settings of a source.
        out: .jsonl or .parquet to write.
        benchmarks: sources whose problems are dropped.
        limit: only this many rows of the source, from the first.
        gold: write `answer`, too.
    """
    held, kept, dropped = read_benchmarks(benchmarks or []), 0, Counter[str]()
    fields = ("id", "problem", "answer") if gold else ("id", "problem")

    def rows() -> Iterator[dict[str, str]]:
        nonlocal kept
        for row in without_benchmarks(read_source(limited(source, limit)), held, dropped):
            kept += 1
            yield {name: row[name] for name in fields if name in row}

    write_table(out, rows())
    print(
        f"{out}: {kept} problems, {dropped.total()} in benchmarks",
        *(f"{count} in {name}" for name, count in dropped.most_common()),
    )


@bounded()
def ift(
    source: str | Source,
    out: Path,
    segmenter: Segmenter = "sentences",
    annotator: Endpoint | None = None,
    prompts: Prompts | None = None,
    similarity: Share = 1.0,
    min_steps: CountOrNone = 1,
    benchmarks: list[str] | None = None,
    limit: Count | None = None,
    dry_run: bool = False,
) -> None:
    """Make IFT data: worked solutions cut into steps; rejected rows go to <out>.rejects.jsonl with the reason.

    Killed and started again, it sends no request to the annotator twice: replies are kept in <out>.replies.jsonl.

    Args:
        source: short name (gsm8k, math, numinamath), file of rows, hub name, or settings of a source.
        out: .jsonl or .parquet to write; the data card goes beside it, <out>.md.
        segmenter: "lines" and "sentences" cut by rule; "annotator" asks for the steps.
        annotator: the OpenAI-compatible endpoint.
        prompts: templates; `segment` is used.
        similarity: rows below it are rejected; at 1.0 only white space and step marks may differ from the solution.
        min_steps: solutions of fewer steps are rejected.
        benchmarks: sources whose problems are rejected.
        limit: only this many rows of the source, from the first.
        dry_run: print the requests, an estimate of tokens and cost, and examples; send and write nothing.
    """
    prompts, data = prompts or Prompts(), IFTData()
    if (segmenter == "annotator") != (annotator is not None) or (dry_run and annotator is None):
        raise UsageError(f"segmenter is {segmenter!r}: the settings annotator.* go with segmenter 'annotator' alone")
    rows = usable(read_source(limited(source, limit)), read_benchmarks(benchmarks or []), data)
    spent = ""
    if annotator is None:
        cuts = [BY_RULE[segmenter](row["solution"]) for row in rows]
    else:
        asked = [prompts.segment_prompt(row["problem"], row["solution"]) for row in rows]
        if dry_run:
            print(estimate(annotator, asked))
            return
        texts, spent = ask_all(annotator, asked, beside(out, "replies.jsonl"), "segmenting")
        cuts = [parse_steps(text) for text in texts]
    for row, steps in zip(rows, cuts, strict=True):
        take(row, steps, similarity, min_steps, data)
    write_table(out, data.rows)
    write_jsonl(beside(out, "rejects.jsonl"), data.rejects)
    filters = f"segmenter `{segmenter}`, similarity at least {similarity:g}, at least {min_steps} steps"
    write_card(beside(out, "md"), out.stem, ift_card(data, filters, benchmarks or [], spent))
    print(f"{out}: {len(data.rows)} solutions kept, {len(data.rejects)} rejected")


def ift_card(data: IFTData, filters: str, benchmarks: Sequence[str], spent: str) -> dict[str, str]:
    steps = [row["solution"].split("\n") for row in data.rows]
    figures = [
        lengths("steps per solution", [len(one) for one in steps]),
        lengths("characters per step", [len(step) for one in steps for step in one]),
        lengths("characters per problem", [len(row["problem"]) for row in data.rows]),
    ]
    return {
        "Counts": f"{len(data.rows)} solutions kept, {len(data.rejects)} rejected (schema in the column `schema`).",
        "Lengths": table(figures),
        "Sources": table(counted("source", (row["source"] for row in data.rows))),
        "Filters": f"{filters}; problems compared with: {', '.join(benchmarks) or 'no benchmark'}.",
        "Rejects": table(counted("reason", (row["reason"] for row in data.rejects))),
        "Annotator": spent,
    }
