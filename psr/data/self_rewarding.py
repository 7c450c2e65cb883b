"""The DataModule that searches: `train_dataloader()` of iteration n serves the step pairs of M(n)'s own search.

It owns problems, engine, search settings and traces. It knows no loss and no answer: problems are read without.
"""

import asyncio
import random
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from lightning import LightningDataModule
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from psr.data.rows import check_accumulation, data_rank, row_loader
from psr.data.traces import TraceJournal, merge_parts, part_of
from psr.engines.base import Engine
from psr.engines.usage import Usage, add_usage, usage_line, used_between
from psr.errors import NoPairsError, UsageError
from psr.files.jsonl import write_json
from psr.files.problems import read_problems
from psr.policy.tokenizer import check_folder, load_tokenizer
from psr.processes.ranks import Ranks, Searchers
from psr.processes.stopping import stop_asked
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.records import Problem, StepPair, Trajectory, Verifier, step_pairs
from psr.run.folder import RunFolder, add_search
from psr.search.judges import Judge, JudgeSettings, build_judge
from psr.search.prm import PRM, PRMJudge
from psr.search.run import for_each
from psr.search.statistics import search_summary
from psr.search.step_search import SearchSettings, step_search
from psr.trees.packing import Group, Row, Unit, plan_rows
from psr.trees.step_tree import Sample


class SelfRewardingDataModule(LightningDataModule):
    """Searches new, unlabelled problems with the current policy and serves the step pairs that it judged.

    Args:
        model: Hugging Face folder of M1; linked to the model's.
        problems: JSONL with `id` and `problem`; other fields are never read.
        run_dir: folder of the run; traces go to `iterations/<nn>/traces.jsonl`.
        engine: what generates and judges.
        problems_per_iteration: how many new problems each iteration searches, in order.
        search: how a problem is searched.
        judge: who judges.
        verifier: exact verifier of a step, for the judge of kind "verifier" only.
        prm: process reward model, for the judge of kind "prm" only.
        min_margin: a pair is kept if the scores of best and worst differ by at least so much.
        batch_size: step pairs per optimizer step; those of one problem share a step tree.
        row_tokens: token budget of a row of step trees: more needs more memory and less time. The gradient of an
            optimizer step is accumulated over as many rows as its pairs need.
        concurrency: problems under way at the same time, of every searcher: more keep many servers full
            (configs/cluster/README.md), fewer lose less at a kill.
        searchers: which processes search, each with an `engine` of its own: every "rank", the first of every "node",
            or the "first" of all. Each takes an equal share of the problems.
        seed: which problems come when, and the order of pairs.
        prompts: templates and step format.
    """

    def __init__(
        self,
        model: str,
        problems: str,
        run_dir: str,
        engine: Engine,
        problems_per_iteration: list[int],
        search: SearchSettings | None = None,
        judge: JudgeSettings | None = None,
        verifier: Verifier | None = None,
        prm: PRM | None = None,
        min_margin: int = 1,
        batch_size: int = 32,
        row_tokens: int = 4096,
        concurrency: int = 512,
        searchers: Searchers = "rank",
        seed: int = 0,
        prompts: Prompts | None = None,
    ) -> None:
        super().__init__()
        self.initial, self.problems_path, self.run = check_folder(model), problems, RunFolder(Path(run_dir))
        self.engine, self.problems_per_iteration = engine, problems_per_iteration
        self.search, self.judge, self.verifier = search or SearchSettings(), judge or JudgeSettings(), verifier
        self.min_margin, self.concurrency, self.seed = min_margin, concurrency, seed
        self.batch_size, self.row_tokens = batch_size, row_tokens
        self.prm = prm
        self.prompts = prompts or Prompts()
        self.searchers, self.ranks = searchers, Ranks()
        self.engine_logprobs: dict[int, float] = {}  # by the number of the pair, where the engine's is the step's own

    def setup(self, stage: str) -> None:
        check_accumulation(self.trainer)
        self.ranks = Ranks.of(self.trainer, self.searchers)
        self.encoder = Encoder(load_tokenizer(self.initial), self.prompts)
        self.problems = read_problems(self.problems_path)
        needed = sum(self.problems_per_iteration)
        if needed > len(self.problems):
            raise UsageError(
                f"data.problems_per_iteration asks for {needed} new problems in all, and {self.problems_path} has "
                f"{len(self.problems)}: give more problems or ask for fewer"
            )
        random.Random(self.seed).shuffle(self.problems)

    def problems_of(self, number: int) -> list[Problem]:
        """The new problems whose search makes M`number` (2, 3, ...)."""
        start = sum(self.problems_per_iteration[: number - 2])
        return self.problems[start : start + self.problems_per_iteration[number - 2]]

    def weights(self, number: int) -> Path:
        """The folder of M`number`."""
        return self.initial if number == 1 else self.run.model(number)

    def teardown(self, stage: str) -> None:
        asyncio.run(self.engine.close())
        if self.prm is not None:
            asyncio.run(self.prm.engine.close())

    async def serve(self, number: int) -> None:
        """Have the engine serve M`number`, if it does not already and this rank searches."""
        version = f"M{number}"
        if self.ranks.searches and self.engine.served_version != version:
            await self.engine.load_weights(self.weights(number), version)

    def train_dataloader(self) -> DataLoader[Row]:
        """The pairs that make M(n + 1), n = epoch + 1: searched now by M(n) where the traces lack problems."""
        assert self.trainer is not None
        # After a resume Lightning asks first with a stale `current_epoch`; `processed` is right then, too.
        epoch = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        number = min(epoch + 2, len(self.problems_per_iteration) + 1)
        pairs = asyncio.run(self.pairs(number))
        groups = pair_groups(pairs, random.Random(f"{self.seed}/{number}"))
        plan = plan_rows(groups, self.batch_size, self.row_tokens, ranks=data_rank(self.trainer)[1])
        return row_loader(plan, self.trainer, self.run.reference(number, self.ranks.rank, self.ranks.size))

    async def pairs(self, number: int) -> list[StepPair]:
        """Complete the traces of the iteration that makes M`number`; its pairs, the same on all ranks.

        Raises:
            NoPairsError: there is none, on all ranks alike.
        """
        version, problems = f"M{number - 1}", self.problems_of(number)
        searched = await self._trajectories(number, version, problems)
        trajectories = [searched[problem.id] for problem in problems]
        pairs = [pair for trajectory in trajectories for pair in step_pairs(trajectory, self.min_margin)]
        self.engine_logprobs = {i: pair.chosen_logprob for i, pair in enumerate(pairs) if pair.chosen_logprob}
        if self.ranks.first:
            write_json(self.run.iteration(number) / "search.json", search_summary(trajectories, len(pairs)))
        if len(set(self.ranks.exchange(zlib.crc32(repr(pairs).encode())))) > 1:
            raise UsageError(f"the ranks read different {self.run.traces(number)}: all must share data.run_dir")
        if not pairs:
            raise NoPairsError(
                f"the search by {version} left no step pair: {len(trajectories)} problems, min_margin "
                f"{self.min_margin} (see {self.run.traces(number)}). Raise data.search.temperature, give more problems "
                "or look at the judge's verdicts in the traces"
            )
        return pairs

    async def _trajectories(self, number: int, version: str, problems: list[Problem]) -> dict[str, Trajectory]:
        """What is searched of the iteration, by problem; what is missing of it is searched now, by all searchers."""
        path, missing = self.run.traces(number), []
        if self.ranks.first:
            done = merge_parts(path, version).trajectories
            missing = [problem for problem in problems if problem.id not in done]
        missing = self.ranks.exchange(missing)[0]
        if missing:
            await self._search_together(missing, number, version)
        return TraceJournal(path, version).trajectories

    async def build_judge(self) -> Judge:
        """The judge of the settings, ready to be asked."""
        if self.judge.kind != "prm" or self.prm is None:
            return build_judge(self.judge, self.engine, self.encoder, self.verifier)
        await self.prm.load()
        judge = PRMJudge(self.prm, self.judge, self.prm.margin)
        return build_judge(self.judge, self.engine, self.encoder, self.verifier, judge)

    async def _search_together(self, missing: list[Problem], number: int, version: str) -> None:
        """Search this rank's share of `missing`, and wait for the others; all of it is in the journal then.

        Where a rank fails or is told to stop, all end with an error, and what was searched until then is kept.
        """
        path, error = self.run.traces(number), None
        started, before = time.monotonic(), dict(self.engine.usage)

        def used() -> tuple[dict[str, Usage], float]:
            return used_between(before, self.engine.usage), time.monotonic() - started

        try:
            if mine := self.ranks.share(missing):
                await self.serve(number - 1)
                started = time.monotonic()
                await self._search(mine, TraceJournal(part_of(path, self.ranks.rank), version), used)
        except BaseException as caught:  # raised again below, once all ranks know
            error = caught
        usages = self.ranks.exchange(used())
        if self.ranks.first:
            merge_parts(path, version)
            total: dict[str, Usage] = {}
            for usage, _ in usages:
                total = add_usage(total, usage)
            add_search(self.run.iteration(number), total, max(usages[rank][1] for rank in self.ranks.searchers))
        self.ranks.settle(error)

    async def _search(
        self, problems: list[Problem], journal: TraceJournal, used: Callable[[], tuple[dict[str, Usage], float]]
    ) -> None:
        """Search `problems` and note every one in the journal as it is done."""
        judge = await self.build_judge()

        def keep(trajectory: Trajectory) -> None:
            journal.append(trajectory)
            told = self.trainer is not None and self.trainer.received_sigterm  # Lightning asks between batches only
            if told or stop_asked():
                raise SIGTERMException

        await for_each(
            problems,
            lambda problem: step_search(problem, self.engine, judge, self.encoder, self.search),
            f"{journal.weights_version} searches",
            self.concurrency,
            keep,
            lambda: usage_line(*used()),
        )


def pair_groups(pairs: list[StepPair], rng: random.Random) -> list[Group]:
    """The pairs of every problem as one group, in random order; a pair's number is its place in `pairs`."""
    groups: dict[str, list[Unit]] = {}
    for number, pair in enumerate(pairs):
        sides = Sample(pair.prompt_ids, pair.chosen_ids), Sample(pair.prompt_ids, pair.rejected_ids)
        groups.setdefault(pair.problem_id, []).append(Unit(number, sides))
    return rng.sample([tuple(group) for group in groups.values()], len(groups))
