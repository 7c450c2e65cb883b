"""The DataModule that searches: new problems every iteration, nothing searched twice, and no answer anywhere."""

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from lightning import Trainer
from transformers import PreTrainedTokenizerBase

from psr.data.self_rewarding import SelfRewardingDataModule
from psr.data.traces import TraceJournal
from psr.engines.base import PromptTooLong, Sampling
from psr.errors import NoPairsError, UsageError
from psr.files.jsonl import read_json, read_jsonl, write_jsonl
from psr.prompts.templates import Prompts
from psr.records import StepPair, step_pairs
from psr.run.folder import RunFolder
from psr.search.loop_judge import LoopJudge
from psr.search.prm import PRM
from psr.search.step_search import SearchSettings
from tests.obvious_pairs import pair_groups
from tests.scripted import END, ScriptedEngine

POISON = "x4711"  # nothing that the digits of a time may hold
"""Characters that the tokenizer can write, so that an answer that leaked would be seen."""


def solve(prompt: str, sampling: Sampling) -> Sequence[str]:
    """A policy that takes two steps, its first candidate the best, and a judge that sees it in both orders."""
    lines = prompt.strip().split("\n")
    if lines[-1].startswith("B "):
        return ["[[A]]" if lines[-2] == "A 1" else "[[B]]"]
    return ["1\n", "2\n"] if len(lines) == 1 else ["1" + END, "2\n"]


def data_module(
    folder: Path,
    policy: Path,
    prompts: Prompts,
    tokenizer: PreTrainedTokenizerBase,
    script: Any = solve,
    **settings: Any,
) -> tuple[SelfRewardingDataModule, ScriptedEngine]:
    rows = [
        {"id": f"p/{i}", "problem": f"{i}+3", "answer": POISON, "solution": f"{i}+3={POISON}\n\\boxed{{{POISON}}}"}
        for i in range(10)
    ]
    write_jsonl(folder / "problems.jsonl", rows)
    engine = ScriptedEngine(tokenizer, script)
    engine.version = lambda: str(engine.served_version)
    options = {"problems_per_iteration": [3, 5], "prompts": prompts, "search": SearchSettings(width=2), **settings}
    data = SelfRewardingDataModule(
        str(policy), str(folder / "problems.jsonl"), str(folder / "run"), engine=engine, **options
    )
    data.setup("fit")
    return data, engine


@pytest.fixture
def make(tmp_path: Path, llama: Path, prompts: Prompts, tokenizer: PreTrainedTokenizerBase) -> Any:
    return lambda **settings: data_module(tmp_path, llama, prompts, tokenizer, **settings)


def test_no_answer_reaches_engine_judge_or_traces(make: Any, llama: Path):
    data, engine = make(problems_per_iteration=[10])
    pairs = list(asyncio.run(data.pairs(2)))
    assert len(pairs) == 20
    assert len(engine.prompts) == 10 * 2 * (1 + 2), "both steps of every problem, each with a judgement in both orders"
    assert any(prompt.endswith("B 2\n") for prompt in engine.prompts)
    assert not any(POISON in prompt for prompt in engine.prompts)
    for path in (data.run.root).rglob("*"):
        assert path.is_dir() or POISON.encode() not in path.read_bytes(), path
    assert POISON not in repr(data.problems)
    assert engine.loaded == [(llama, "M1")]


def test_iterations_get_disjoint_new_problems_in_an_order_that_the_seed_fixes(make: Any):
    data, _ = make(problems_per_iteration=[3, 5, 2])
    slices = [[problem.id for problem in data.problems_of(number)] for number in (2, 3, 4)]
    assert [len(one) for one in slices] == [3, 5, 2]
    assert sorted(name for one in slices for name in one) == [f"p/{i}" for i in range(10)]
    again, _ = make(problems_per_iteration=[3, 5, 2])
    assert [problem.id for problem in again.problems_of(2)] == slices[0]
    again.setup("fit")
    assert [problem.id for problem in again.problems_of(2)] == slices[0], "setting up twice changes nothing"
    other, _ = make(problems_per_iteration=[3, 5, 2], seed=1)
    assert [problem.id for problem in other.problems_of(2)] != slices[0]


def test_more_problems_than_there_are_is_an_error_with_the_numbers(make: Any):
    with pytest.raises(UsageError, match=r"problems_per_iteration asks for 11 .*problems\.jsonl has 10"):
        make(problems_per_iteration=[5, 6])


def test_the_pairs_are_those_of_the_traces(make: Any):
    data, _ = make()
    pairs = list(asyncio.run(data.pairs(2)))
    journal = TraceJournal(data.run.traces(2), "M1")
    assert set(journal.trajectories) == {problem.id for problem in data.problems_of(2)}
    assert pairs == [p for problem in data.problems_of(2) for p in step_pairs(journal.trajectories[problem.id])]
    summary = read_json(data.run.iteration(2) / "search.json")
    assert (summary["problems"], summary["pairs"], summary["finished"]) == (3, 6, 1.0)
    assert read_json(data.run.iteration(2) / "seconds.json")["search"] > 0


def test_complete_traces_are_not_searched_again_nor_weights_loaded(make: Any):
    first, _ = make()
    pairs = list(asyncio.run(first.pairs(2)))
    again, engine = make()
    assert list(asyncio.run(again.pairs(2))) == pairs
    assert engine.prompts == [] and engine.loaded == []


def test_only_problems_without_a_trace_are_searched(make: Any):
    first, _ = make()
    pairs = list(asyncio.run(first.pairs(2)))
    path = first.run.traces(2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:50])  # killed while the third was being written
    again, engine = make()
    assert list(asyncio.run(again.pairs(2))) == pairs
    third = json.loads(lines[2])["problem"]["problem"]
    assert {prompt.split("\n")[0] for prompt in engine.prompts} == {third}


def test_what_was_searched_before_an_error_stays(make: Any):
    calls = 0

    def failing(prompt: str, sampling: Sampling) -> Sequence[str]:
        nonlocal calls
        calls += 1
        if calls > 8:
            raise RuntimeError("the server is gone")
        return solve(prompt, sampling)

    broken, _ = make(script=failing, concurrency=1)
    with pytest.raises(RuntimeError, match="the server is gone"):
        asyncio.run(broken.pairs(2))
    assert len(TraceJournal(broken.run.traces(2), "M1").trajectories) == 1
    again, engine = make()
    assert len(asyncio.run(again.pairs(2))) == 6
    assert len({prompt.split("\n")[0] for prompt in engine.prompts}) == 2


def test_a_later_iteration_is_searched_by_the_weights_before_it(make: Any):
    data, engine = make()
    asyncio.run(data.pairs(3))
    assert engine.loaded == [(data.run.model(2), "M2")]
    assert len(TraceJournal(data.run.traces(3), "M2").trajectories) == 5
    asyncio.run(data.serve(2))
    assert len(engine.loaded) == 1, "weights that are served already are not loaded again"


def test_a_search_that_leaves_no_pair_says_what_to_change(make: Any):
    data, _ = make(script=lambda prompt, sampling: ["1\n", "1\n"])
    with pytest.raises(NoPairsError, match=r"search by M1 left no step pair: 3 problems.*data\.search\.temperature"):
        asyncio.run(data.pairs(2))
    assert read_json(data.run.iteration(2) / "search.json")["pairs"] == 0


def test_min_margin_is_applied(make: Any):
    data, _ = make(min_margin=2)
    with pytest.raises(NoPairsError, match="min_margin 2"):
        asyncio.run(data.pairs(2))


def test_the_verifier_judge_needs_no_judgement_of_the_engine(make: Any):
    data, engine = make(judge=LoopJudge(kind="verifier"), verifier=lambda problem, steps, step: "1" in step)
    assert len(asyncio.run(data.pairs(2))) == 6
    assert not any("A " in prompt for prompt in engine.prompts)


def test_the_pairs_of_a_problem_are_one_group_and_keep_their_numbers():
    pairs = [StepPair(f"p/{i % 4}", i // 4, (i,), (1,), (2, 3), 1) for i in range(11)]
    groups = pair_groups(pairs, random.Random(0))
    assert sorted(unit.number for group in groups for unit in group) == list(range(11))
    for group in groups:
        assert len({pairs[unit.number].problem_id for unit in group}) == 1
        for unit in group:
            chosen, rejected = unit.samples
            assert (chosen.prompt_ids, chosen.completion_ids) == ((unit.number,), (1,))
            assert (rejected.prompt_ids, rejected.completion_ids) == ((unit.number,), (2, 3))
    assert len(groups) == 4
    assert groups == pair_groups(pairs, random.Random(0))
    assert groups != pair_groups(pairs, random.Random(1))


@pytest.mark.parametrize("row_tokens", [8, 4096])
def test_an_iterations_rows_hold_its_pairs(make: Any, row_tokens: int):
    """Three problems of two pairs each, four pairs an optimizer step; the reference has a file in the iteration."""
    data, _ = make(batch_size=4, row_tokens=row_tokens)
    data.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    loader = data.train_dataloader()
    rows = list(loader)
    assert sorted(number for row in rows for number in row.units.tolist()) == list(range(6))
    assert sum(len(row.units) for row in rows[: data.trainer.accumulate_grad_batches]) == 4
    assert (data.trainer.accumulate_grad_batches > 1) == (row_tokens == 8)
    assert all(len(row.lengths) == 2 * len(row.units) for row in rows)
    assert loader.dataset.store == data.run.iteration(2) / "reference.safetensors"


def test_a_process_reward_model_may_be_the_judge(
    make: Any, llama: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
):
    """It prefers the greater digit, against what the policy would say of itself."""
    scorer = ScriptedEngine(tokenizer, solve, choices=lambda prompt: [float(prompt.strip()[-1]), 1.5])
    judge = LoopJudge(kind="prm", orders="one")
    data, engine = make(judge=judge, prm=PRM(llama, scorer, "{problem}\n"), problems_per_iteration=[2])
    pairs = list(asyncio.run(data.pairs(2)))
    assert pairs and all(str(tokenizer.decode(list(pair.chosen_ids))).strip() == "2" for pair in pairs)
    assert scorer.loaded == [(llama, llama.name)], "loaded once, in an engine of its own"
    assert not any("B " in prompt for prompt in engine.prompts), "the policy itself is not asked"
    with pytest.raises(UsageError, match=r"judge\.kind is 'prm', and there is no data\.prm"):
        data, _ = make(judge=judge, problems_per_iteration=[2], seed=9)
        data.run = RunFolder(tmp_path / "other")
        asyncio.run(data.pairs(2))


LONG = {"id": "long", "problem": "1+3" * 60}


def with_a_long_one(data: SelfRewardingDataModule) -> None:
    write_jsonl(data.problems_path, [LONG, *read_jsonl(data.problems_path, ["id", "problem"])])


def test_a_problem_that_is_too_long_is_named_left_out_and_counted(make: Any, capsys: pytest.CaptureFixture[str]):
    data, engine = make(problems_per_iteration=[10])
    with_a_long_one(data)
    data.setup("fit")
    said = capsys.readouterr().out
    assert "problems.jsonl: 1 of 11 problems are too long" in said and "context of 96 tokens: 'long'" in said
    assert len(asyncio.run(data.pairs(2))) == 20
    assert not any(LONG["problem"] in prompt for prompt in engine.prompts)
    assert read_json(data.run.iteration(2) / "search.json")["left_out"] == 1


def test_a_problem_that_is_too_long_may_be_an_error(make: Any):
    data, engine = make(problems_per_iteration=[10], too_long="error")
    with_a_long_one(data)
    with pytest.raises(UsageError, match=r"problems\.jsonl: 1 of 11 problems are too long.*'long': shorten"):
        data.setup("fit")
    assert engine.prompts == []


def test_a_problem_too_long_for_the_server_alone_is_noted_and_not_asked_again(make: Any):
    def short(prompt: str, sampling: Sampling) -> Sequence[str]:
        if prompt.startswith("4+3"):
            raise PromptTooLong("a prompt of 4 tokens leaves no room")
        return solve(prompt, sampling)

    data, engine = make(problems_per_iteration=[10], script=short)
    assert len(asyncio.run(data.pairs(2))) == 18
    assert read_json(data.run.iteration(2) / "search.json")["too_long"] == 1
    asked = len(engine.prompts)
    asyncio.run(data.pairs(2))
    assert len(engine.prompts) == asked
    strict, _ = make(problems_per_iteration=[10], script=short, too_long="error", seed=1)
    strict.run = RunFolder(data.run.root / "other")
    with pytest.raises(PromptTooLong, match=r"problem 'p/4': a prompt of 4 tokens"):
        asyncio.run(strict.pairs(2))
