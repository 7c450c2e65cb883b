"""The DataModule that searches: `train_dataloader()` of iteration n serves the step pairs of M(n)'s own search.

It owns problems, engine, search settings and traces. It knows no loss, and problems are read without their answers.
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
    """Searches new, unlabelled problems with the current policy and serves the step pairs that it judged itself.

    Args:
        model: Hugging Face folder of M1; linked to the model's.
        problems: JSONL with `id` and `problem`; other fields are never read.
        run_dir: folder of the run; traces go to `iterations/<nn>/traces.jsonl`.
        engine: what generates and judges.
        problems_per_iteration: how many new problems each iteration searches, from the first iteration to the last.
        search: how a problem is searched.
        judge: who judges.
        verifier: exact verifier of a step, for the judge of kind "verifier" only.
        prm: process reward model, for the judge of kind "prm" only.
        min_margin: a pair is kept if the scores of the best and the worst candidate differ by at least this much.
        batch_size: step pairs per optimizer step; those of one problem share a step tree.
        row_tokens: token budget of a micro-batch (a row of step trees): more needs more memory and less time.
            Gradients are accumulated over as many rows as the pairs of an optimizer step need.
        concurrency: problems that each searcher has under way at the same time: more keep many servers busy
            (configs/cluster/README.md), fewer lose less when a run is killed.
        searchers: which processes search, each with an `engine` of its own: every "rank", the first of every "node",
            or only the "first" of all. Each takes an equal share of the problems.
        seed: of the order of the problems and of the pairs.
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
        # Before they are divided into iterations: a file sorted by source or difficulty gives each a fair sample.
        random.Random(self.seed).shuffle(self.problems)

    def problems_of(self, number: int) -> list[Problem]:
        """The problems whose search trains M`number` (2, 3, ...)."""
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
        """Have the engine serve M`number`, if this rank searches and its engine does not serve it already."""
        version = f"M{number}"
        if self.ranks.searches and self.engine.served_version != version:
            await self.engine.load_weights(self.weights(number), version)

    def train_dataloader(self) -> DataLoader[Row]:
        """The pairs that train M(n + 1), n = epoch + 1; M(n) now searches the problems that have no trace yet."""
        assert self.trainer is not None
        # After a resume, Lightning first calls this with a stale `current_epoch`; `processed` is right even then.
        epoch = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        # A resumed fit with no epoch left asks all the same: it gets the last iteration, whose search is done.
        number = min(epoch + 2, len(self.problems_per_iteration) + 1)
        pairs = asyncio.run(self.pairs(number))
        # A seed of its own for every iteration, so that a resumed run lays out the same rows.
        groups = pair_groups(pairs, random.Random(f"{self.seed}/{number}"))
        plan = plan_rows(groups, self.batch_size, self.row_tokens, ranks=data_rank(self.trainer)[1])
        return row_loader(plan, self.trainer, self.run.reference(number, self.ranks.rank, self.ranks.size))

    async def pairs(self, number: int) -> list[StepPair]:
        """Complete the traces of the iteration that trains M`number`; its pairs, the same on all ranks.

        Raises:
            NoPairsError: there are none; raised on all ranks.
        """
        version, problems = f"M{number - 1}", self.problems_of(number)
        searched = await self._trajectories(number, version, problems)
        trajectories = [searched[problem.id] for problem in problems]  # not in the order in which they were finished
        pairs = [pair for trajectory in trajectories for pair in step_pairs(trajectory, self.min_margin)]
        if self.ranks.first:
            write_json(self.run.iteration(number) / "search.json", search_summary(trajectories, len(pairs)))
        # Ranks that plan different rows would hang in the first collective operation that they do not share.
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
        """The iteration's trajectories by problem id; all searchers together search what is missing now."""
        path, missing = self.run.traces(number), []
        # Rank 0 alone decides: another rank could read the journal while its lines are being merged.
        if self.ranks.first:
            done = merge_parts(path, version).trajectories
            missing = [problem for problem in problems if problem.id not in done]
        missing = self.ranks.exchange(missing)[0]
        if missing:
            await self._search_together(missing, number, version)
        return TraceJournal(path, version).trajectories

    async def build_judge(self) -> Judge:
        """The judge that the settings name, with its PRM loaded if it is one."""
        if self.judge.kind != "prm" or self.prm is None:
            return build_judge(self.judge, self.engine, self.encoder, self.verifier)
        await self.prm.load()
        judge = PRMJudge(self.prm, self.judge, self.prm.margin)
        return build_judge(self.judge, self.engine, self.encoder, self.verifier, judge)

    async def _search_together(self, missing: list[Problem], number: int, version: str) -> None:
        """Search this rank's share of `missing` and wait for the other ranks; then the journal has all trajectories.

        Where a rank fails or is preempted, all ranks raise an error, and finished searches are kept.
        """
        path, error = self.run.traces(number), None
        started, before = time.monotonic(), dict(self.engine.usage)  # the engine counts since it was made

        def used() -> tuple[dict[str, Usage], float]:
            return used_between(before, self.engine.usage), time.monotonic() - started

        try:
            if mine := self.ranks.share(missing):
                await self.serve(number - 1)
                started = time.monotonic()  # loading weights is no search
                await self._search(mine, TraceJournal(part_of(path, self.ranks.rank), version), used)
        except BaseException as caught:  # raised below: first the others must learn of it, or they would wait for us
            error = caught
        usages = self.ranks.exchange(used())  # also the barrier after which every rank's file is complete
        if self.ranks.first:
            merge_parts(path, version)
            # Tokens add up over ranks; they search at the same time, so the slowest gives the seconds.
            total: dict[str, Usage] = {}
            for usage, _ in usages:
                total = add_usage(total, usage)
            add_search(self.run.iteration(number), total, max(usages[rank][1] for rank in self.ranks.searchers))
        self.ranks.settle(error)

    async def _search(
        self, problems: list[Problem], journal: TraceJournal, used: Callable[[], tuple[dict[str, Usage], float]]
    ) -> None:
        """Search `problems`, appending every trajectory to the journal as soon as it is finished."""
        judge = await self.build_judge()

        def keep(trajectory: Trajectory) -> None:
            journal.append(trajectory)
            # Lightning looks at its SIGTERM flag between batches only, and a search can take hours.
            told = self.trainer is not None and self.trainer.received_sigterm
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
    """The pairs of every problem as one group, the groups in random order; a pair's number is its index in `pairs`."""
    # One problem, one step tree: its pairs share the prompt and the chain of chosen steps.
    groups: dict[str, list[Unit]] = {}
    for number, pair in enumerate(pairs):
        sides = Sample(pair.prompt_ids, pair.chosen_ids), Sample(pair.prompt_ids, pair.rejected_ids)
        groups.setdefault(pair.problem_id, []).append(Unit(number, sides))
    return rng.sample([tuple(group) for group in groups.values()], len(groups))
