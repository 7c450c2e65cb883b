"""The prompt templates (reason, judge, score, segment) and the parsers of replies; all can be set from YAML.

Knows texts and step boundaries. Does not know engines, models, or what a verdict is used for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

REASON = """\
Solve the problem below. Write the solution as a sequence of steps, each on a line of its own that starts with \
"Step 1:", "Step 2:" and so on. Each step follows from the ones before it and moves the solution on. End the last step \
with the final answer in \\boxed{}.

Problem: {problem}

Solution:
"""

JUDGE = """\
You are an impartial judge of mathematical reasoning. Two assistants continue the same partial solution, each with one \
next step. Decide which next step is better: it should be correct, follow from the steps so far, and help to reach \
the answer. Neither the order in which the two are shown, nor their length, nor their names may influence you. First \
explain your comparison briefly, then end with the verdict: [[A]] if the next step of assistant A is better, [[B]] if \
that of assistant B is better. There is no tie.

Problem: {problem}

Steps so far:
{steps}
Next step of assistant A:
{a}
Next step of assistant B:
{b}
Judgement:
"""

SCORE = """\
Review the response to the problem below and give it a score from 0 to 5. Start at 0 and add one point for each of \
these that holds:
- the response is about the problem and has something of use, even if it is incomplete or partly beside the point;
- it deals with a substantial part of the problem, though it does not resolve it in full;
- it has what matters for an answer, usable whatever its style;
- it is written for the one who asks, answers all of the problem directly, and is clear and well organised;
- it is beyond reproach: every step is correct, nothing is superfluous, and it shows expert knowledge.
First explain your review briefly, then end with the score as "Score: 3".

Problem: {problem}

Steps so far:
{steps}
Response:
{response}
Review:
"""

SEGMENT = """\
Divide the solution below into steps. Copy it word for word: add, drop, correct and reorder nothing, and keep every \
formula and the final \\boxed{} as they are. Begin every step on a line of its own with "Step 1:", "Step 2:" and so \
on; one step is one move of the reasoning. Write nothing else.

Problem: {problem}

Solution:
{solution}
"""

STEP_MARK = re.compile(r"^[ \t]*(?:[*#]+[ \t]*)?Step[ \t]+\d+[ \t]*[:.)][ \t]*(?:\*+[ \t]*)?", re.M | re.I)
"""The mark before a step, as people and models write it."""
VERDICTS = ("A", "B")
SCORES = range(6)
"""Of the additive judge of Self-Rewarding Language Models (arXiv 2401.10020): a point for each criterion met."""


@dataclass(frozen=True)
class Prompts:
    """Templates and step format.

    Placeholders: reason has {problem}; judge has {problem}, {steps}, {a}, {b}; score {problem}, {steps}, {response};
    segment {problem}, {solution}.

    Args:
        reason: asks for a solution step by step.
        judge: asks which of two next steps is better, explanation first, verdict last.
        score: asks for the score of one response, or next step, explanation first, score last.
        segment: asks an annotator to divide a worked solution into steps without changing it.
        verdict: how a verdict is written; {label} is A or B.
        score_verdict: how a score is written; {score} is a digit from 0 to 5.
        step_marker: text with which every step begins ("Step " in the paper's format), or empty.
        step_separator: text that ends a step that is not the last; it belongs to the step that it ends.
        chat: wrap both prompts in the tokenizer's chat template as one user message.
    """

    reason: str = REASON
    judge: str = JUDGE
    score: str = SCORE
    segment: str = SEGMENT
    verdict: str = "[[{label}]]"
    score_verdict: str = "Score: {score}"
    step_marker: str = "Step "
    step_separator: str = "\n"
    chat: bool = False

    def __post_init__(self) -> None:
        needed = {
            "reason": ["{problem}"],
            "judge": ["{problem}", "{steps}", "{a}", "{b}"],
            "score": ["{problem}", "{steps}", "{response}"],
            "segment": ["{problem}", "{solution}"],
            "verdict": ["{label}"],
            "score_verdict": ["{score}"],
        }
        for name, placeholders in needed.items():
            missing = [p for p in placeholders if p not in getattr(self, name)]
            if missing:
                raise ValueError(f"prompts.{name} lacks {', '.join(missing)}: add the placeholder to the template")
        if not self.step_separator:
            raise ValueError('prompts.step_separator is empty: a step needs a text that ends it, for instance "\\n"')

    @property
    def step_stop(self) -> str:
        """The text at which the generation of one step stops: the end of this step and the marker of the next."""
        return self.step_separator + self.step_marker

    def reason_prompt(self, problem: str) -> str:
        return fill(self.reason, problem=problem)

    def judge_prompt(self, problem: str, steps: str, a: str, b: str) -> str:
        a, b = (step.removesuffix(self.step_separator).rstrip("\n") for step in (a, b))
        return fill(self.judge, problem=problem, steps=steps, a=a, b=b)

    def score_prompt(self, problem: str, steps: str, response: str) -> str:
        response = response.removesuffix(self.step_separator).rstrip("\n")
        return fill(self.score, problem=problem, steps=steps, response=response)

    def segment_prompt(self, problem: str, solution: str) -> str:
        return fill(self.segment, problem=problem, solution=solution)

    def verdict_text(self, label: str) -> str:
        return fill(self.verdict, label=label)

    def score_text(self, score: int) -> str:
        return fill(self.score_verdict, score=str(score))

    def parse_verdict(self, text: str) -> str | None:
        """The label of the last verdict in `text`, or None where there is none."""
        pattern = "(A|B)".join(re.escape(part) for part in self.verdict.split("{label}"))
        found = re.findall(pattern, text)
        return found[-1] if found else None

    def parse_score(self, text: str) -> int | None:
        """The last score in `text`, or None where there is none."""
        found = re.findall("([0-5])".join(re.escape(part) for part in self.score_verdict.split("{score}")), text)
        return int(found[-1]) if found else None

    def format_steps(self, steps: Sequence[str]) -> str:
        """Plain step texts as one solution in the step format: numbered where there is a marker."""
        return "".join(self.format_step(i + 1, step, i + 1 == len(steps)) for i, step in enumerate(steps))

    def format_step(self, number: int, step: str, last: bool) -> str:
        head = f"{self.step_marker}{number}: " if self.step_marker else ""
        return head + step.strip() + ("" if last else self.step_separator)


def fill(template: str, **values: str) -> str:
    """Fill {name} placeholders in one pass; all other braces, in the template and in the values, stay."""
    pattern = "|".join(re.escape("{" + name + "}") for name in values)
    return re.sub(pattern, lambda match: values[match.group()[1:-1]], template)
