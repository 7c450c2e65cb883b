"""Looks on as a problem is searched, without a change to the search: all that it does passes by its judge.

A judge is told the steps that the solution stands on and the candidates for the next one. Fewer steps than before mean
that the search went back.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from psr.records import Candidate, Judgement, Problem, StepNode
from psr.search.judges import Judge
from psr.search.step_search import SearchSettings, expand


class WatchedJudge:
    """Hands everything to `judge`, and keeps what has come of the search so far; for one problem.

    `nodes` are the expansions as step search notes them, `waiting` the candidates that are being judged. `changed` is
    called whenever either has changed.
    """

    def __init__(self, judge: Judge, settings: SearchSettings, changed: Callable[[], None]) -> None:
        self._judge, self._settings, self._changed = judge, settings, changed
        self.nodes: list[StepNode] = []
        self.waiting: tuple[Candidate, ...] = ()

    async def __call__(
        self, problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]
    ) -> list[Judgement]:
        kept = [i for i, node in enumerate(self.nodes) if node.event == "kept"]
        for i in kept[len(steps) :]:
            self.nodes[i] = replace(self.nodes[i], event="rolled_back")
        self.waiting = tuple(candidates)
        self._changed()
        judgements = await self._judge(problem, steps, candidates)
        self.nodes.append(expand(len(steps), self.waiting, judgements, self._settings))
        self.waiting = ()
        self._changed()
        return judgements
