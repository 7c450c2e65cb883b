"""From solutions to results: grades each solution, and summarizes a set of them.

Knows the rows that `psr search` writes, and reference answers. Does not know how a problem was solved.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from psr.evaluation.rules import grade
from psr.evaluation.solving import count_steps
from psr.evaluation.statistics import graded, standard_error, standard_error_of_mean
from psr.prompts.encoder import Encoder
from psr.records import GoldProblem
from psr.search.statistics import mean

Row = dict[str, Any]


def grade_rows(rows: Sequence[Row], problems: Sequence[GoldProblem], encoder: Encoder) -> list[Row]:
    """The outcome of every solution, in the order of the problems.

    `correct` is None where the problem has no reference answer; `samples` are the outcomes of all solutions that a
    majority voted on, none of a problem that was too long to be asked. A solution that was cut off is wrong.
    """
    sampled = [_samples(row) for row in rows]
    texts = [[row["solution"] if row["finished"] else "", *more] for row, more in zip(rows, sampled, strict=True)]
    flat = [(problem, text) for problem, some in zip(problems, texts, strict=True) for text in some]
    verdicts = iter(grade([problem for problem, _ in flat], [text for _, text in flat]))
    outcomes = []
    for row, problem, some in zip(rows, problems, texts, strict=True):
        correct, *samples = [next(verdicts) for _ in some]
        outcomes.append(
            {
                "id": problem.id,
                "answer": row["answer"],
                "gold": problem.answer,
                "correct": correct,
                "samples": samples,
                "finished": row["finished"],
                "too_long": "too_long" in row["trace"],
                "steps": count_steps(row["solution"], encoder),
                "tokens": len(encoder.plain(row["solution"])),
                "characters": len(row["solution"]),
                "generated_tokens": row["generated_tokens"],
                "prompt_tokens": row["prompt_tokens"],
            }
        )
    return outcomes


def _samples(row: Row) -> list[str]:
    """The solutions that a majority was found of; none of any other method."""
    trace = row["trace"]
    if "votes" not in trace:
        return []
    return [text if done else "" for text, done in zip(trace["solutions"], trace["finished"], strict=True)]


def summarize(outcomes: Sequence[Row]) -> Row:
    """Shares and means with standard errors.

    Problems without a reference answer are listed but not counted; those too long for the model are listed and wrong.
    """
    correct = graded([one["correct"] for one in outcomes])
    finished = [one for one in outcomes if one["finished"]]
    steps = sum(one["steps"] for one in finished)
    figures: Row = {
        "problems": len(outcomes),
        "graded": len(correct),
        "no_gold": [one["id"] for one in outcomes if one["correct"] is None],
        "too_long": [one["id"] for one in outcomes if one["too_long"]],
        "accuracy": mean(correct),
        "accuracy_stderr": standard_error(correct) if correct else None,
        "finished": mean(one["finished"] for one in outcomes),
        "steps": mean(one["steps"] for one in finished),
        "steps_stderr": standard_error_of_mean([one["steps"] for one in finished]),
        "step_tokens": sum(one["tokens"] for one in finished) / steps if steps else None,
        "step_characters": sum(one["characters"] for one in finished) / steps if steps else None,
        "solution_tokens": mean(one["tokens"] for one in finished),
        "histogram": {str(n): count for n, count in sorted(Counter(one["steps"] for one in finished).items())},
        "generated_tokens": mean(one["generated_tokens"] for one in outcomes),
        "prompt_tokens": mean(one["prompt_tokens"] for one in outcomes),
    }
    sampled = [one["samples"] for one in outcomes if one["samples"] and one["correct"] is not None]
    shares = [sum(samples) / len(samples) for samples in sampled]
    if shares:
        figures["average"], figures["average_stderr"] = mean(shares), standard_error_of_mean(shares)
        figures["any"] = mean(share > 0 for share in shares)
    return figures
