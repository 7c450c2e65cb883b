"""Supervised data: the loss sees completions only, judges see both orders, and every sample is served once."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from transformers import PreTrainedTokenizerBase

from psr.data.sft import SFTDataModule, eft_samples, ift_samples, score_samples
from psr.errors import UsageError
from psr.files.jsonl import DataError, write_jsonl
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.trees.packing import Row
from psr.trees.step_tree import Sample

IFT = [
    {"id": "a", "problem": "3+4", "solution": "3+4=7 \\boxed{7}", "answer": "7"},
    {"id": "b", "problem": "3+4-5", "solution": "3+4=7\n7-5=2 \\boxed{2}", "answer": "2"},
]
EFT = {
    "problem": "3+4-5",
    "previous_steps": ["3+4=7"],
    "chosen": "7-5=2",
    "rejected": "7-5=3",
    "explanations": {"chosen_first": "A=2;", "rejected_first": "B=2;"},
}


def file(folder: Path, rows: list[dict[str, Any]], name: str = "rows") -> str:
    write_jsonl(folder / f"{name}.jsonl", rows)
    return str(folder / f"{name}.jsonl")


def texts(samples: list[Sample], encoder: Encoder) -> list[tuple[str, str]]:
    return [
        (encoder.text(sample.prompt_ids), str(encoder.tokenizer.decode(list(sample.completion_ids))))
        for sample in samples
    ]


def test_a_worked_solution_is_asked_for_and_ends_in_eos(tmp_path: Path, encoder: Encoder):
    assert texts(ift_samples(file(tmp_path, IFT), encoder), encoder) == [
        ("3+4\n", "3+4=7 \\boxed{7}<eos>"),
        ("3+4-5\n", "3+4=7\n7-5=2 \\boxed{2}<eos>"),
    ]


def test_an_answer_that_the_solution_does_not_box_is_boxed_in_its_last_step(tmp_path: Path, encoder: Encoder):
    rows = [
        {"problem": "3+4-5", "solution": "3+4=7\n7-5=2\n", "answer": "2"},  # as in GSM8K
        {"problem": "3+4-5", "solution": "3+4=\\boxed{7}\n7-5=2", "answer": 2},
        {"problem": "3+4-5", "solution": "3+4=7\n7-5=2"},
    ]
    assert [text for _, text in texts(ift_samples(file(tmp_path, rows), encoder), encoder)] == [
        "3+4=7\n7-5=2 \\boxed{2}<eos>",
        "3+4=\\boxed{7}\n7-5=2 \\boxed{2}<eos>",
        "3+4=7\n7-5=2<eos>",
    ]


def test_blank_lines_of_a_solution_are_not_steps(tmp_path: Path, encoder: Encoder):
    rows = [{"problem": "3+4-5", "solution": "3+4=7\n\n \n7-5=2 \\boxed{2}\n\n"}]
    [(_, text)] = texts(ift_samples(file(tmp_path, rows), encoder), encoder)
    assert text == "3+4=7\n7-5=2 \\boxed{2}<eos>"


def test_steps_are_numbered_in_the_papers_format(tmp_path: Path, bpe):
    encoder = Encoder(bpe, Prompts())
    [_, (prompt, solution)] = texts(ift_samples(file(tmp_path, IFT), encoder), encoder)
    assert "Problem: 3+4-5\n" in prompt
    assert solution == "Step 1: 3+4=7\nStep 2: 7-5=2 \\boxed{2}<eos>"


def test_a_judged_pair_is_learnt_in_both_orders_verdict_last(tmp_path: Path, encoder: Encoder):
    assert texts(eft_samples(file(tmp_path, [EFT]), encoder), encoder) == [
        ("3+4-5\n3+4=7\nA 7-5=2\nB 7-5=3\n", "A=2;[[A]]<eos>"),
        ("3+4-5\n3+4=7\nA 7-5=3\nB 7-5=2\n", "B=2;[[B]]<eos>"),
    ]


def test_without_explanations_only_the_verdict_is_learnt(tmp_path: Path, encoder: Encoder):
    row = {name: value for name, value in EFT.items() if name != "explanations"}
    completions = [text for _, text in texts(eft_samples(file(tmp_path, [row]), encoder), encoder)]
    assert completions == ["[[A]]<eos>", "[[B]]<eos>"]


def test_a_judge_is_trained_on_the_prompt_that_it_is_asked_in_the_search(tmp_path: Path, bpe):
    """What search makes of the policy's own steps is, token by token, what EFT rows were made into."""
    encoder = Encoder(bpe, Prompts())
    first, _ = eft_samples(file(tmp_path, [EFT]), encoder)
    assert first.prompt_ids == encoder.judge("3+4-5", "Step 1: 3+4=7\n", "Step 2: 7-5=2\n", "Step 2: 7-5=3\n")


def module(folder: Path, policy: Path, prompts: Prompts, **settings: Any) -> SFTDataModule:
    ift, eft = file(folder, IFT, "ift"), file(folder, [EFT, EFT], "eft")
    return SFTDataModule(**{"model": str(policy), "ift": ift, "eft": eft, "prompts": prompts, **settings})


def completions(rows: Iterable[Row]) -> Counter[tuple[int, ...]]:
    """How often each completion is served."""
    return Counter(
        tuple(row.targets[row.members[row.owners == owner]].tolist())
        for row in rows
        for owner in range(len(row.lengths))
    )


@pytest.mark.parametrize("row_tokens", [1, 60, 4096])
def test_the_data_module_mixes_solutions_and_judgements(tmp_path: Path, llama: Path, prompts: Prompts, row_tokens: int):
    data = module(tmp_path, llama, prompts, batch_size=4, row_tokens=row_tokens)
    data.setup("fit")
    assert len(data.train_samples) == 2 + 4
    rows = list(data.train_dataloader())
    assert completions(rows) == Counter(sample.completion_ids for sample in data.train_samples)
    assert {1: 6, 60: 4, 4096: 2}[row_tokens] == len(rows), "two optimizer steps, of four samples and of two"
    assert data.val_dataloader() == []


def test_samples_in_a_row_do_not_see_each_other(tmp_path: Path, llama: Path, prompts: Prompts):
    """Not even those that begin alike: each is a tree of its own."""
    data = module(tmp_path, llama, prompts, eft=None)
    data.setup("fit")
    [row] = data.train_dataloader()
    first = len(data.train_samples[0])
    lengths = sorted(map(len, data.train_samples))
    assert sorted(row.ends.unique().tolist()) in ([lengths[0], sum(lengths)], [lengths[1], sum(lengths)])
    assert len(row.token_ids) == sum(lengths) and first in lengths


def test_the_order_is_another_one_in_every_epoch_and_for_every_seed(tmp_path: Path, llama: Path, prompts: Prompts):
    rows = [{"problem": f"{i}+{i}", "solution": f"{i}+{i}={2 * i}"} for i in range(20)]
    data = SFTDataModule(str(llama), file(tmp_path, rows, "many"), prompts=prompts)
    data.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    data.setup("fit")
    [first], [same] = data.train_dataloader(), data.train_dataloader()
    data.trainer.fit_loop.epoch_progress.current.completed = 1
    data.trainer.fit_loop.epoch_progress.current.processed = 1
    [second] = data.train_dataloader()
    data.seed = 1
    [other] = data.train_dataloader()
    assert torch.equal(first.token_ids, same.token_ids)
    assert not torch.equal(first.units, first.units.sort().values)
    for another in (second, other):
        assert completions([another]) == completions([first])
        assert not torch.equal(another.token_ids, first.token_ids)


def test_validation_is_served_in_a_fixed_order(tmp_path: Path, llama: Path, prompts: Prompts):
    data = module(tmp_path, llama, prompts, val_ift=file(tmp_path, IFT, "val"), eft=None)
    data.setup("fit")
    assert len(data.train_samples) == len(data.val_samples) == 2
    [row], [again] = data.val_dataloader(), data.val_dataloader()
    assert torch.equal(row.token_ids, again.token_ids)
    assert completions([row]) == Counter(sample.completion_ids for sample in data.val_samples)


def test_samples_longer_than_max_tokens_are_left_out_and_counted(
    tmp_path: Path, llama: Path, prompts: Prompts, capsys: pytest.CaptureFixture[str]
):
    data = module(tmp_path, llama, prompts, eft=None, max_tokens=20)
    data.setup("fit")
    assert [len(sample) for sample in data.train_samples] == [14]
    assert "1 of 2 samples exceed 20 tokens" in capsys.readouterr().out
    long = {"id": "3", "problem": "+".join("1" * 30), "solution": "1+1=2\n" * 10}
    data = module(tmp_path, llama, prompts, ift=file(tmp_path, [*IFT, long], "long"), eft=None)
    data.setup("fit")
    assert "1 of 3 samples exceed 96 tokens" in capsys.readouterr().out, "longer than the model's context"
    with pytest.raises(UsageError, match=r"max_tokens is 3 and the model takes up to 96: none of 2 samples"):
        module(tmp_path, llama, prompts, eft=None, max_tokens=3).setup("fit")


def test_limit_takes_the_first_rows_of_each_file(tmp_path: Path, llama: Path, prompts: Prompts):
    data = module(tmp_path, llama, prompts, limit=1)
    data.setup("fit")
    assert len(data.train_samples) == 1 + 2, "one solution, and one pair in both orders"


def test_a_row_without_a_field_is_named(tmp_path: Path, encoder: Encoder):
    with pytest.raises(DataError, match="line 1: field 'rejected' is missing"):
        eft_samples(file(tmp_path, [{name: EFT[name] for name in ("problem", "previous_steps", "chosen")}]), encoder)


def test_scored_rows_teach_a_judge_that_scores(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, prompts: Prompts):
    encoder = Encoder(
        tokenizer, replace(prompts, score="{problem}\n{steps}? {response}\n", score_verdict="[[{score}]]")
    )
    step = {"problem": "3+4-5", "previous_steps": ["3+4=7"], "response": "7-5=2", "score": 5, "explanation": "7-5=2+"}
    whole = {
        "problem": "3+4-5",
        "previous_steps": [],
        "response": "3+4=7\n7-5=3",
        "score": 2,
        "granularity": "response",
    }
    assert texts(score_samples(file(tmp_path, [step, whole]), encoder), encoder) == [
        ("3+4-5\n3+4=7\n? 7-5=2\n", "7-5=2+[[5]]<eos>"),
        ("3+4-5\n? 3+4=7\n7-5=3\n", "[[2]]<eos>"),
    ]
    with pytest.raises(DataError, match="'response' is missing"):
        score_samples(file(tmp_path, [EFT]), encoder)


def test_all_judge_data_is_mixed(tmp_path: Path, llama: Path, prompts: Prompts):
    response = {**EFT, "previous_steps": [], "granularity": "response", "chosen": "3+4=7\n7-5=2", "rejected": "3+4=8"}
    scored = {"problem": "3+4", "previous_steps": [], "response": "3+4=7", "score": 5}
    data = SFTDataModule(
        str(llama),
        file(tmp_path, IFT, "ift"),
        [file(tmp_path, [EFT], "steps"), file(tmp_path, [response], "responses")],
        file(tmp_path, [scored], "scores"),
        prompts=replace(prompts, score="{problem}\n{steps}{response}\n"),
    )
    data.trainer = Trainer(logger=False, accelerator="cpu")
    data.setup("fit")
    assert len(data.train_samples) == 2 + 2 + 2 + 1
