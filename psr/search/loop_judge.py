"""Who judges in the loop: the policy as it is, an earlier one, another model, or whatever answers at an endpoint.

Knows judges, engines and the annotator's client. Does not know where an iteration's weights lie.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from psr.bounds import bounded
from psr.curation.annotator.client import Annotator
from psr.curation.annotator.settings import Endpoint
from psr.engines.base import Engine
from psr.engines.usage import Usage
from psr.errors import UsageError
from psr.policy.tokenizer import check_folder
from psr.prompts.templates import Prompts
from psr.records import Candidate, Judgement, Problem
from psr.search.judges import JudgeSettings, ask_pairwise

NAMED = ("current", "initial", "previous")


@bounded("judge")
@dataclass(frozen=True)
class LoopJudge(JudgeSettings):
    """Who judges in the loop, and how.

    Args:
        model: whose weights judge what M(n) writes: those of the "current" M(n), of M1 ("initial"), of M(n - 1)
            ("previous"; M1 judges itself), or of a Hugging Face folder, whose model may have another tokenizer.
        engine: what serves the judge, if it is not the policy's engine: one of its own, as any `model` but "current"
            needs, since an engine serves one model at a time; or an OpenAI-compatible endpoint (`url`, and `model`, the
            endpoint's name for it), which is shown the pairwise prompt as a user's message. What it costs is counted
            under "judge" in `iterations/<nn>/usage.json`.
    """

    model: str = "current"
    engine: Engine | Endpoint | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model != "current" and isinstance(self.engine, Endpoint):
            raise UsageError(f"judge.model is {self.model!r} and judge.engine an endpoint: name its model there, alone")
        if self.model != "current" and self.engine is None:
            raise UsageError(
                f"judge.model is {self.model!r} and judge.engine is not set: the policy's engine serves the policy. "
                "Name another one there, for instance class_path: LocalEngine"
            )
        if self.model not in NAMED:
            check_folder(self.model)
        if self.engine is not None and self.kind != "self":
            raise UsageError(f"judge.engine is set and judge.kind is {self.kind!r}: only the kind 'self' asks a model")
        if isinstance(self.engine, Endpoint) and (self.form, self.verdicts) != ("pairwise", "explain"):
            raise UsageError(
                f"judge.form is {self.form!r} and judge.verdicts {self.verdicts!r}: an endpoint compares and explains, "
                "set them to pairwise and explain"
            )

    def judging(self, policy: int) -> int | None:
        """The number of the model that judges what M`policy` writes; None where a folder or an endpoint does."""
        return {"current": policy, "initial": 1, "previous": max(1, policy - 1)}.get(self.model)


@dataclass(frozen=True)
class EndpointJudge:
    """A model behind an OpenAI-compatible endpoint compares two candidates, shown the policy's judge prompt."""

    annotator: Annotator
    prompts: Prompts
    settings: JudgeSettings

    async def __call__(
        self, problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]
    ) -> list[Judgement]:
        so_far = "".join(steps)

        async def ask(pairs: Sequence[tuple[str, str]]) -> list[tuple[str | None, str]]:
            texts = [self.prompts.judge_prompt(problem.problem, so_far, a, b) for a, b in pairs]
            asked = (self.annotator.ask([{"role": "user", "content": text}]) for text in texts)
            return [(self.prompts.parse_verdict(reply.text), reply.text) for reply in await asyncio.gather(*asked)]

        return await ask_pairwise(candidates, self.settings, ask)

    @property
    def usage(self) -> Usage:
        """What the endpoint was asked; replies that were kept from before cost nothing."""
        sent = self.annotator.sent
        return Usage(sent.requests, sent.prompt_tokens, 0, sent.generated_tokens)
