"""The DataModule that searches: `train_dataloader()` of iteration n serves the step pairs of M(n)'s own search.

It owns problems, engine, search settings and traces. It knows no loss, and problems are read without their answers.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from psr.bounds import Count, CountOrNone, Seed, bounded
from psr.curation.annotator.client import Annotator
from psr.curation.annotator.settings import Endpoint
from psr.data.pair_table import PairTable, write_pairs
from psr.data.rows import data_rank, row_loader
from psr.data.second_look import agreement, anchored
from psr.data.switches import check_trainer, dev_run
from psr.data.together import Keep, trajectories
from psr.data.traces import TraceJournal
from psr.engines.base import Engine, PromptTooLong
from psr.engines.usage import Usage, usage_line, used_between
from psr.errors import NoPairsError, PSRError, UsageError
from psr.files.jsonl import write_json
from psr.files.problems import read_problems
from psr.policy.tokenizer import check_folder, load_tokenizer
from psr.processes.ranks import Ranks, Searchers
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.records import Problem, Trajectory, Verifier
from psr.run.folder import RunFolder
from psr.search.fitting import TooLong, fitting
from psr.search.judges import Judge, build_judge
from psr.search.loop_judge import EndpointJudge, LoopJudge
from psr.search.pairs import PairSettings
from psr.search.prm import PRM, PRMJudge
from psr.search.run import hand_over
from psr.search.statistics import search_summary, total
from psr.search.step_search import SearchSettings, step_search
from psr.terminal.text import brief
from psr.trees.packing import Row, plan_rows


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
        too_long: problems whose prompt fills the model's context: "skip" names them and leaves them out, "error" ends
            the fit before anything is searched.
        pairs: what step pairs are made of, and how they count.
    """

    @bounded("data")
    def __init__(
        self,
        model: str,
        problems: str,
        run_dir: str,
        engine: Engine,
        problems_per_iteration: list[Count],
        search: SearchSettings | None = None,
        judge: LoopJudge | None = None,
        verifier: Verifier | None = None,
        prm: PRM | None = None,
        min_margin: CountOrNone = 1,
        batch_size: Count = 32,
        row_tokens: Count = 4096,
        concurrency: Count = 512,
        searchers: Searchers = "rank",
        seed: Seed = 0,
        prompts: Prompts | None = None,
        too_long: TooLong = "skip",
        pairs: PairSettings | None = None,
    ) -> None:
        super().__init__()
        self.initial, self.problems_path, self.run = check_folder(model), problems, RunFolder(Path(run_dir))
        self.engine, self.problems_per_iteration = engine, problems_per_iteration
        self.search, self.judge, self.verifier = search or SearchSettings(), judge or LoopJudge(), verifier
        self.min_margin, self.concurrency, self.seed = min_margin, concurrency, seed
        self.batch_size, self.row_tokens = batch_size, row_tokens
        self.prm = prm
        self.prompts, self.too_long, self.left_out = prompts or Prompts(), too_long, 0
        self.searchers, self.ranks = searchers, Ranks()
        self.pairing, self.asked_endpoint = pairs or PairSettings(), Usage()
        self.pairing.check(self.judge)
        self.engine_logprobs: dict[int, float] = {}  # by the number of the pair, where the engine's is the step's own
        self.most_pairs: int | None = None
        self.scratch: tempfile.TemporaryDirectory[str] | None = None

    def setup(self, stage: str) -> None:
        check_trainer(self.trainer, iterates=True)
        if few := dev_run(self.trainer):
            self._set_up_dev_run(few)
        self.ranks = Ranks.of(self.trainer, self.searchers)
        self.encoder = Encoder(load_tokenizer(self.initial), self.prompts)
        read = read_problems(self.problems_path)
        self.problems = fitting(read, self.encoder, self.initial, self.problems_path, self.too_long, self.say)
        self.left_out = len(read) - len(self.problems)
        needed = sum(self.problems_per_iteration)
        if needed > len(self.problems):
            raise UsageError(
                f"data.problems_per_iteration asks for {needed} new problems in all, and {self.problems_path} has "
                f"{len(self.problems)}{' that are not too long' * bool(self.left_out)}: give more or ask for fewer"
            )
        # Before they are divided into iterations: a file sorted by source or difficulty gives each a fair sample.
        random.Random(self.seed).shuffle(self.problems)

    def _set_up_dev_run(self, problems: int) -> None:
        """`trainer.fast_dev_run`: one iteration of so many problems, one pair, one optimizer step; nothing is kept."""
        self.problems_per_iteration, self.most_pairs = [problems], 1
        self.scratch = tempfile.TemporaryDirectory(prefix="psr-fast-dev-run-")
        self.run = RunFolder(Path(self.scratch.name))

    def say(self, line: str) -> None:
        """Print a line once, however many ranks have it to say."""
        if self.ranks.first:
            print(line)

    def problems_of(self, number: int) -> list[Problem]:
        """The problems whose search trains M`number` (2, 3, ...)."""
        start = sum(self.problems_per_iteration[: number - 2])
        return self.problems[start : start + self.problems_per_iteration[number - 2]]

    def weights(self, number: int) -> Path:
        """The folder of M`number`."""
        return self.initial if number == 1 else self.run.model(number)

    def teardown(self, stage: str) -> None:
        for engine in (self.engine, self.judge_engine, None if self.prm is None else self.prm.engine):
            if engine is not None:
                asyncio.run(engine.close())
        if self.scratch is not None:
            self.scratch.cleanup()

    @property
    def judge_engine(self) -> Engine | None:
        """The engine of a judge that the policy's engine does not serve."""
        return None if isinstance(self.judge.engine, Endpoint) else self.judge.engine

    async def sleep(self) -> None:
        """Lend the memory of the engines to the trainer."""
        await self.engine.sleep()
        if self.judge_engine is not None:
            await self.judge_engine.sleep()

    @property
    def usage(self) -> dict[str, Usage]:
        """What the policy's engine has been asked, by kind, and under "judge" what another judge has."""
        asked = self.judge_engine.usage.values() if self.judge_engine is not None else ()
        apart = {"judge": sum(asked, self.asked_endpoint)} if self.judge.engine is not None else {}
        return {**self.engine.usage, **apart}

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
        groups = pairs.groups(random.Random(f"{self.seed}/{number}"))
        ranks = data_rank(self.trainer)[1]
        plan = plan_rows(groups, self.batch_size, self.row_tokens, ranks=ranks, measure=pairs.sized)
        store = self.run.reference(number, self.ranks.rank, self.ranks.size)
        return row_loader(plan, self.trainer, store, counts=pairs.counts)

    async def pairs(self, number: int) -> PairTable:
        """Complete the traces of the iteration that trains M`number`; its pairs, the same on all ranks.

        Raises:
            NoPairsError: there are none; raised on all ranks.
        """
        version, problems = f"M{number - 1}", self.problems_of(number)
        searched = await self._searched(number, version, problems)
        if lost := [problem.id for problem in problems if problem.id not in searched.trajectories]:
            raise UsageError(
                f"{self.run.traces(number)} has lost {len(lost)} problems that were searched just now, "
                f"{brief(lost[0])} among them: something else writes to it, or has removed it. Start the same "
                "command again"
            )
        paired, label = searched, None
        if self.pairing.rejected == "initial":
            paired = await anchored(self, number, searched.trajectories, problems)
        if self.pairing.soft_labels == "consistency":
            label = await agreement(self, number, paired.trajectories, problems)
        pairs = self._laid_out(number, problems, searched, paired, label)
        self.engine_logprobs = pairs.logprobs
        if not len(pairs):
            raise NoPairsError(
                f"the search by {version} left no step pair: {len(problems)} problems, min_margin "
                f"{self.min_margin} (see {self.run.traces(number)}). Raise data.search.temperature, give more problems "
                "or look at the judge's verdicts in the traces"
            )
        return pairs

    def _laid_out(
        self,
        number: int,
        problems: list[Problem],
        searched: TraceJournal,
        paired: TraceJournal,
        label: float | None,
    ) -> PairTable:
        """The pairs as the first rank writes them and all read them; it notes the figures of the search, too."""
        names = [problem.id for problem in problems]  # not in the order in which they were finished
        folder, checksum, error = self.run.pairs(number), None, None
        if self.ranks.first:
            try:
                settings = self.min_margin, self.pairing.weight, label, self.most_pairs
                checksum = write_pairs(folder, paired.indexed(names), *settings)
                found = search_summary(total(one.tally for one in searched.indexed(names)), len(PairTable(folder)))
                noted = {**found, "left_out": self.left_out, "label": label}
                write_json(self.run.iteration(number) / "search.json", noted)
            except PSRError as caught:  # raised once all ranks know
                error = caught
        self.ranks.settle(error)
        pairs = PairTable(folder)
        # Ranks that plan different rows would hang in the first collective operation that they do not share.
        written = self.ranks.exchange(checksum)[0]
        if not all(self.ranks.exchange(pairs.checksum == written)):
            raise UsageError(f"the ranks read different {self.run.traces(number)}: all must share data.run_dir")
        return pairs

    async def _searched(self, number: int, version: str, problems: list[Problem]) -> TraceJournal:
        """The iteration's traces, with the searches of all its problems."""

        async def search(problem: Problem, judge: Judge) -> Trajectory:
            try:
                return await step_search(problem, self.engine, judge, self.encoder, self.search)
            except PromptTooLong as error:  # for the context of a server, which may be less than the model's
                if self.too_long == "error":
                    raise PromptTooLong(f"{self.problems_path}: problem {brief(problem.id)}: {error}") from None
                return Trajectory(problem, self.encoder.reason(problem.problem), (), False, version)

        async def work(mine: list[Problem], keep: Keep) -> None:
            started, before = time.monotonic(), self.usage
            async with self.judging(number - 1) as judge:
                await hand_over(
                    mine,
                    lambda problem: search(problem, judge),
                    keep,
                    f"{version} searches",
                    self.concurrency,
                    lambda: usage_line(used_between(before, self.usage), time.monotonic() - started),
                )

        return await trajectories(self, self.run.traces(number), number, problems, work, serves=number - 1)

    @asynccontextmanager
    async def judging(self, number: int) -> AsyncIterator[Judge]:
        """The judge of what M`number` writes, ready to be asked."""
        judge, engine = self.judge, self.judge_engine
        if isinstance(judge.engine, Endpoint):
            kept = self.run.root / "judge" / f"replies-{self.ranks.rank}.jsonl"
            async with Annotator(judge.engine, kept) as annotator:
                asked = EndpointJudge(annotator, self.prompts, judge)
                try:
                    yield asked
                finally:
                    self.asked_endpoint += asked.usage
        elif engine is not None:
            by = judge.judging(number)
            folder, version = (Path(judge.model), judge.model) if by is None else (self.weights(by), f"M{by}")
            if engine.served_version != version:
                await engine.load_weights(folder, version)
            yield build_judge(judge, engine, Encoder(load_tokenizer(folder), self.prompts), self.verifier)
        elif judge.kind == "prm" and self.prm is not None:
            await self.prm.load()
            yield PRMJudge(self.prm, judge, self.prm.margin)
        else:
            yield build_judge(judge, self.engine, self.encoder, self.verifier)
