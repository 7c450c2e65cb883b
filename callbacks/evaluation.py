"""Evaluates every M(n) of the loop on held-out problems and pairs, and writes to the loggers and `results.json`.

Reads reference answers, none of which reach the loop.
"""

import asyncio
import time
from typing import Any

from lightning import Callback, LightningModule, Trainer

from callbacks.self_rewarding_loop import loop_data
from psr.bounds import Count, CountOrNone, bounded
from psr.data.self_rewarding import SelfRewardingDataModule
from psr.evaluation.judging import evaluate_judge
from psr.evaluation.solving import solve_by_search, solve_greedy
from psr.evaluation.statistics import accuracy_figures, graded
from psr.files.jsonl import read_json
from psr.files.problems import read_gold_problems
from psr.prompts.judged import read_pairs
from psr.run.folder import SECONDS, add_seconds, search_figures
from psr.run.results import has_model, update_model
from psr.search.statistics import mean


class EvaluateIterations(Callback):
    """Evaluates M1 at the start of the fit and M(n + 1) at the end of every iteration.

    Args:
        problems: JSONL of held-out problems with `answer`.
        judge_pairs: JSONL of held-out EFT pairs, or several such files.
        max_tokens: greedy solutions are cut off at this many tokens.
        search_problems: self-judged search is measured on this many of the problems, from the first.
        limit: use only this many problems and pairs, from the first.
    """

    @bounded("evaluation")
    def __init__(
        self,
        problems: str,
        judge_pairs: str | list[str],
        max_tokens: Count = 1024,
        search_problems: CountOrNone = 100,
        limit: Count | None = None,
    ) -> None:
        self.problems = read_gold_problems(problems, limit)
        files = [judge_pairs] if isinstance(judge_pairs, str) else judge_pairs
        self.judge_rows = [row for file in files for row in read_pairs(file, limit)]
        self.max_tokens, self.search_problems = max_tokens, search_problems

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = loop_data(trainer)
        # M1 is the baseline; a resumed fit comes here again and need not measure it a second time.
        if trainer.is_global_zero and not has_model(data.run.results, "M1"):
            self._evaluate(trainer, data, 1)
        data.ranks.wait()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = loop_data(trainer)
        if trainer.is_global_zero:
            self._evaluate(trainer, data, trainer.current_epoch + 2)  # epoch 0 trains M2
        data.ranks.wait()  # in the patient group: a collective of the training would time out meanwhile

    def _evaluate(self, trainer: Trainer, data: SelfRewardingDataModule, number: int) -> None:
        started = time.monotonic()
        figures = asyncio.run(self._measure(data, number))
        folder = data.run.iteration(number)
        add_seconds(folder, "evaluate", time.monotonic() - started)
        searched = read_json(folder / "search.json")  # empty for M1, which no search made
        entry = {"name": f"M{number}", **figures, "pairs": searched.get("pairs", 0), "search": searched}
        update_model(
            data.run.results, {**entry, "seconds": {"search": 0.0, "train": 0.0, **read_json(folder / SECONDS)}}
        )
        metrics = {f"eval/{name}": value for name, value in figures.items() if value is not None}
        found_and_spent = {**searched, **search_figures(folder)}
        metrics |= {f"search/{name}": value for name, value in found_and_spent.items() if value is not None}
        for logger in trainer.loggers:
            logger.log_metrics({**metrics, "iteration": number}, step=trainer.global_step)

    async def _measure(self, data: SelfRewardingDataModule, number: int) -> dict[str, Any]:
        few = 1 if data.most_pairs else None  # of a dev run
        await data.serve(number)  # the loop has done so already, but not for M1
        engine, encoder, name = data.engine, data.encoder, f"M{number}"
        solved = await solve_greedy(engine, encoder, self.problems[:few], self.max_tokens, f"{name} solves")
        some = self.problems[: few or self.search_problems]
        async with data.judging(number) as judge:  # that of the loop, so that search is measured as the loop uses it
            searched, _ = await solve_by_search(engine, encoder, some, judge, data.search, f"{name} searches held-out")
        judging = await evaluate_judge(engine, encoder, self.judge_rows[:few], data.judge)
        # Steps only of finished solutions: one that ran into `max_tokens` has as many as fit.
        finished = [one for one in solved if one.finished]
        steps = sum(one.steps for one in finished)
        return {
            **accuracy_figures([one.correct for one in solved]),
            "no_box": mean(not one.boxed for one in finished),
            "search_accuracy": mean(graded(searched)),
            **judging,
            "unfinished": mean(not one.finished for one in solved),
            "steps_per_solution": mean(one.steps for one in finished),
            "step_length_tokens": sum(one.tokens for one in finished) / steps if steps else None,
        }
