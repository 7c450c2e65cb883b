"""The last stages of every source of judged pairs: annotator, filters, split, files, data card."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psr.commands.annotating import ask_all, beside
from psr.curation.annotated import EFTData, questions, split_by_problem, take_judged
from psr.curation.annotator.dry_run import estimate
from psr.curation.annotator.settings import Endpoint
from psr.curation.card import counted, lengths, table, write_card
from psr.errors import NoPairsError, UsageError
from psr.files.jsonl import write_jsonl
from psr.files.tables import write_table
from psr.prompts.templates import Prompts


def finish(
    pairs: list[dict[str, Any]],
    data: EFTData,
    out: Path,
    prompts: Prompts,
    annotator: Endpoint | None,
    heldout: int,
    dry_run: bool,
    seed: int,
    origin: str,
) -> None:
    """Have the annotator judge the pairs, apply the filters, split, and write rows, rejects and data card."""
    asked = [question for pair in pairs for question in questions(pair, prompts)]
    spent = ""
    if dry_run:
        print("no annotator is given: nothing would be asked" if annotator is None else estimate(annotator, asked))
        return
    if annotator is None:
        data.rows.extend(pairs)
    else:
        replies, spent = ask_all(annotator, asked, beside(out, "replies.jsonl"), "judging")
        for pair, first, second in zip(pairs, replies[::2], replies[1::2], strict=True):
            take_judged(pair, (first, second), prompts, data)
    if not data.rows:
        reasons = ", ".join(f"{row['rows']} {row['reason']}" for row in counted("reason", reasons_of(data)))
        raise NoPairsError(f"no pair is left for {out}: {reasons or 'there was none to begin with'}")
    training, held = split_by_problem(data.rows, heldout, seed)
    if not training:
        raise UsageError(f"heldout is {heldout}, and only {len(held)} pairs are left: hold out fewer, or make more")
    write_table(out, training)
    if heldout:
        write_table(out.with_name(f"{out.stem}.heldout{out.suffix}"), held)
    write_jsonl(beside(out, "rejects.jsonl"), data.rejects)
    write_card(beside(out, "md"), out.stem, eft_card(training, held, data, origin, spent))
    print(f"{out}: {len(training)} + {len(held)} held-out pairs, {len(data.rejects)} rejected")


def reasons_of(data: EFTData) -> list[str]:
    return [row["reason"] for row in data.rejects]


def eft_card(
    training: Sequence[dict[str, Any]], held: Sequence[dict[str, Any]], data: EFTData, origin: str, spent: str
) -> dict[str, str]:
    rows = [*training, *held]
    problems = [len({row["problem"] for row in part}) for part in (training, held)]
    explained = [text for row in rows for text in row.get("explanations", {}).values()]
    figures = [
        lengths("previous steps", [len(row["previous_steps"]) for row in rows]),
        lengths("characters, chosen step", [len(row["chosen"]) for row in rows]),
        lengths("characters, rejected step", [len(row["rejected"]) for row in rows]),
        lengths("characters, explanation", [len(text) for text in explained]),
    ]
    longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in rows) / len(rows)
    return {
        "Counts": f"{len(training)} training pairs on {problems[0]} problems, {len(held)} held-out pairs on "
        f"{problems[1]} others, {len(data.rejects)} rejected. The chosen step is the longer one in {longer:.1%}.",
        "Lengths": table(figures),
        "Sources": origin,
        "Rejects": table(counted("reason", reasons_of(data))),
        "Annotator": spent,
    }
