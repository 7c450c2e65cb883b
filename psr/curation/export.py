"""Rows in the formats of other trainers: TRL's preference format for step pairs, `messages` for worked solutions.

Texts are in the step format of the prompts, without a chat template, which the other trainer applies. Knows rows and
prompts.
"""

from collections.abc import Mapping
from typing import Any

from psr.curation.segmenting import with_box
from psr.prompts.templates import Prompts
from psr.records import Trajectory

PREFERENCE_SCHEMA = "psr-preference-1"
MESSAGES_SCHEMA = "psr-messages-1"


def preferences_of_trajectory(trajectory: Trajectory, prompts: Prompts) -> list[dict[str, Any]]:
    """`prompt`, `chosen`, `rejected` of every kept step with a winner: problem and chosen steps are the prompt."""
    rows, prompt = [], prompts.reason_prompt(trajectory.problem.problem)
    for node in trajectory.kept:
        chosen, rejected = (node.candidates[i].text for i in (node.chosen, node.rejected))
        if node.margin > 0:
            rows.append(_preference(f"{trajectory.problem.id}/{node.depth}", prompt, chosen, rejected))
        prompt += chosen
    return rows


def preference_of_pair(row: Mapping[str, Any], prompts: Prompts) -> dict[str, Any]:
    """The same for an EFT row; its steps are taken not to be the last ones of a solution: the row does not say."""
    steps = row["previous_steps"]
    prompt = prompts.reason_prompt(row["problem"])
    prompt += "".join(prompts.format_step(i + 1, step, last=False) for i, step in enumerate(steps))
    sides = (prompts.format_step(len(steps) + 1, row[side], last=False) for side in ("chosen", "rejected"))
    return _preference(str(row.get("id", "")), prompt, *sides)


def _preference(name: str, prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {"schema": PREFERENCE_SCHEMA, "id": name, "prompt": prompt, "chosen": chosen, "rejected": rejected}


def messages(row: Mapping[str, Any], prompts: Prompts) -> dict[str, Any]:
    """A worked solution as a question and an answer."""
    steps = with_box([line for line in row["solution"].split("\n") if line.strip()], row.get("answer"))
    turns = [("user", prompts.reason_prompt(row["problem"])), ("assistant", prompts.format_steps(steps))]
    said = [{"role": role, "content": content} for role, content in turns]
    return {"schema": MESSAGES_SCHEMA, "id": str(row.get("id", "")), "messages": said}
