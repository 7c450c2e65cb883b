"""Prompts: filling and parsing leave the user's texts alone, and wrong templates are refused by name."""

import pytest

from psr.prompts.templates import JUDGE, REASON, Prompts, fill


def test_the_papers_prompts_hold_what_they_were_given():
    text = Prompts().judge_prompt("What is {x}?", "Step 1: a\n", "Step 2: b\n", "Step 2: c")
    assert "Problem: What is {x}?\n" in text
    assert "Steps so far:\nStep 1: a\n\nNext step of assistant A:\nStep 2: b\n" in text
    assert "Next step of assistant B:\nStep 2: c\n" in text
    assert text.endswith("Judgement:\n")
    assert "[[A]]" in text and "[[B]]" in text
    reason = Prompts().reason_prompt("1+1?")
    assert "Problem: 1+1?\n" in reason and "\\boxed{}" in reason and "{problem}" not in reason


def test_braces_and_placeholders_inside_a_value_are_not_filled():
    filled = fill("{a}|{b}|\\boxed{}|{other}", a="{b} and \\1 \\g<0>", b="{a}")
    assert filled == "{b} and \\1 \\g<0>|{a}|\\boxed{}|{other}"


def test_a_judged_step_is_shown_without_its_separator():
    custom = Prompts(judge="{problem}{steps}<{a}><{b}>", step_separator=" ;\n", step_marker="")
    assert custom.judge_prompt("p", "s", "one ;\n", "two") == "ps<one><two>"
    lines = Prompts(judge="{problem}{steps}<{a}><{b}>")
    assert lines.judge_prompt("p", "s", "one\n", "two\n\n") == "ps<one><two>"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A is right. [[A]]", "A"),
        ("[[B]]", "B"),
        ("First I thought [[A]], but [[B]]", "B"),
        ("[[C]] or [A] or [[a]] or A", None),
        ("[[A]", None),
        ("", None),
    ],
)
def test_the_last_verdict_counts(text: str, label: str | None):
    assert Prompts().parse_verdict(text) == label


def test_a_verdict_of_another_form_is_parsed_literally():
    prompts = Prompts(verdict="Winner (final): {label}.")
    assert prompts.parse_verdict("Winner (final): B.") == "B"
    assert prompts.parse_verdict("Winner final: B.") is None
    assert prompts.parse_verdict("Winner (final): B!") is None
    assert prompts.parse_verdict(prompts.verdict_text("A")) == "A"


def test_steps_are_numbered_where_there_is_a_marker():
    assert Prompts().format_steps(["a ", " b", "c"]) == "Step 1: a\nStep 2: b\nStep 3: c"
    assert Prompts(step_marker="", step_separator="\n\n").format_steps(["a", "b"]) == "a\n\nb"


def test_formatted_steps_part_at_the_step_stop():
    prompts = Prompts()
    text = prompts.format_steps(["a", "b", "c"])
    assert text.split(prompts.step_stop) == ["Step 1: a", "2: b", "3: c"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reason": "Solve it"}, r"prompts\.reason lacks \{problem\}"),
        ({"judge": "{problem} {steps} {a}"}, r"prompts\.judge lacks \{b\}"),
        ({"judge": "{a} {b}"}, r"prompts\.judge lacks \{problem\}, \{steps\}"),
        ({"verdict": "[[A]]"}, r"prompts\.verdict lacks \{label\}"),
        ({"step_separator": ""}, r"prompts\.step_separator is empty"),
    ],
)
def test_a_template_that_cannot_work_is_named(settings: dict[str, str], message: str):
    with pytest.raises(ValueError, match=message):
        Prompts(**settings)


def test_the_shipped_templates_have_no_placeholder_but_their_own():
    assert Prompts(reason=REASON, judge=JUDGE) == Prompts()
    left = fill(JUDGE, problem="", steps="", a="", b="") + fill(REASON, problem="")
    assert "{" not in left.replace("\\boxed{}", "")
