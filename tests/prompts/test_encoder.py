"""Encoding: steps are cut at token boundaries in both step formats, and only ends carry EOS."""

import pytest
from transformers import PreTrainedTokenizerFast

from psr.policy.tiny_tokenizer import build_tokenizer
from psr.prompts.encoder import Encoder, StepBoundaryError
from psr.prompts.templates import Prompts
from tests.conftest import train_bpe

FIRST, SECOND = "Step 1: Then the sum is 5.\n", "Step 2: Hence the answer is \\boxed{7}"


def test_a_line_is_a_step_and_keeps_its_separator(encoder: Encoder):
    ids = encoder.plain("3+4=7\n")
    step = encoder.step(ids, -1.5, "stop")
    assert step is not None
    assert (step.token_ids, step.text, step.logprob, step.final) == (tuple(ids), "3+4=7\n", -1.5, False)


@pytest.mark.parametrize("overshoot", ["Step ", "Step 2"])
def test_the_marker_of_the_next_step_is_cut_off_whole(bpe: PreTrainedTokenizerFast, overshoot: str):
    encoder = Encoder(bpe, Prompts())
    step = encoder.step(encoder.plain(FIRST + overshoot), 0.0, "stop")
    assert step is not None
    assert step.text == FIRST
    assert step.token_ids == tuple(encoder.plain(FIRST))
    assert not step.final


def test_cut_steps_joined_are_the_tokens_of_the_whole_solution(bpe: PreTrainedTokenizerFast):
    encoder = Encoder(bpe, Prompts())
    solution = Prompts().format_steps(["Then the sum is 5.", "So we subtract and find 2", "Hence 9"])
    whole, parts = list(encoder.completion(solution)), []
    while whole:
        stops = [n for n in range(1, len(whole)) if encoder.prompts.step_stop in encoder.text(whole[:n])]
        generated, reason = (whole[: stops[0]], "stop") if stops else (whole, "eos")
        step = encoder.step(generated, 0.0, reason)
        assert step is not None
        parts.append(step)
        whole = whole[len(step.token_ids) :] if reason == "stop" else []
    assert tuple(token for step in parts for token in step.token_ids) == encoder.completion(solution)
    assert "".join(step.text for step in parts) == solution
    assert [step.final for step in parts] == [False, False, True]


def test_a_final_step_keeps_eos_and_shows_none(bpe: PreTrainedTokenizerFast):
    encoder = Encoder(bpe, Prompts())
    step = encoder.step(encoder.completion(SECOND), 0.0, "eos")
    assert step is not None
    assert step.final
    assert step.token_ids[-1] == bpe.eos_token_id
    assert step.text == SECOND


def test_a_step_that_was_cut_off_is_none(encoder: Encoder):
    assert encoder.step(encoder.plain("3+4"), 0.0, "length") is None


def test_a_tokenizer_that_joins_separator_and_marker_is_refused():
    joining = train_bpe("lines")
    with pytest.raises(StepBoundaryError, match=r"'\\n' and the step marker 'Step '"):
        Encoder(joining, Prompts())
    Encoder(joining, Prompts(step_marker=""))


def test_only_the_final_completion_ends_in_eos(encoder: Encoder):
    eos = encoder.tokenizer.eos_token_id
    assert encoder.completion("3+4=7") == (*encoder.plain("3+4=7"), eos)
    assert encoder.completion("3+4=7\n", final=False) == tuple(encoder.plain("3+4=7\n"))
    assert eos not in encoder.reason("3+4")


def test_prompts_become_the_ids_of_their_templates(encoder: Encoder):
    assert encoder.text(encoder.reason("3+4")) == "3+4\n"
    assert encoder.text(encoder.judge("3+4", "3+4=7\n", "7+1=8\n", "7+1=9")) == "3+4\n3+4=7\nA 7+1=8\nB 7+1=9\n"


def test_verdict_choices_are_where_a_and_b_part(encoder: Encoder, bpe: PreTrainedTokenizerFast):
    for one in (encoder, Encoder(bpe, Prompts()), Encoder(bpe, Prompts(verdict="Assistant {label} is better"))):
        shared, (a, b) = one.verdict_choices()
        for token, label in ((a, "A"), (b, "B")):
            ids = tuple(one.plain(one.prompts.verdict_text(label)))
            assert ids[: len(shared) + 1] == (*shared, token)
        assert a != b


def test_a_begin_token_starts_prompts_and_nothing_else():
    from tokenizers.processors import TemplateProcessing

    bpe = train_bpe("words")
    bos = bpe.convert_tokens_to_ids("!")
    bpe.backend_tokenizer.post_processor = TemplateProcessing(single="! $A", special_tokens=[("!", bos)])
    encoder = Encoder(bpe, Prompts())
    assert encoder.reason("5 ")[0] == bos
    assert bos not in encoder.completion(FIRST)
    assert bos not in encoder.verdict_choices()[0]


def test_the_chat_template_wraps_prompts_as_one_user_message():
    tokenizer = build_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}({{ m.content }}){% endfor %}{% if add_generation_prompt %}:{% endif %}"
    )
    prompts = Prompts(reason="{problem}\n", judge="{problem}\n{steps}A {a}\nB {b}\n", step_marker="", chat=True)
    encoder = Encoder(tokenizer, prompts)
    assert encoder.text(encoder.reason("3+4")) == "(3+4\n):"
    assert encoder.text(encoder.judge("3+4", "", "3+4=7", "3+4=8")) == "(3+4\nA 3+4=7\nB 3+4=8\n):"
    assert encoder.text(encoder.completion("3+4=7")) == "3+4=7"


@pytest.mark.parametrize("problem", ["7", "7+" * 300 + "7", "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 400])
def test_whether_a_prompt_fits_is_as_its_tokens_say(bpe: PreTrainedTokenizerFast, problem: str):
    encoder = Encoder(bpe, Prompts())
    length = len(encoder.reason(problem))
    for context in (length - 1, length, length + 1, 3 * length, 10 * length):
        assert encoder.reason_fits(problem, context) == (length < context)
