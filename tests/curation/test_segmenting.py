r"""Segmentation by rule, and the checks: nothing altered, nothing lost, formulas whole."""

import pytest

from psr.curation.segmenting import by_lines, by_sentences, keeps_box, parse_steps, similarity, with_box


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("She pays $10. Then $5 is left. Done", ["She pays $10.", "Then $5 is left.", "Done"]),
        ("It is 3.5 m. So 7 m.", ["It is 3.5 m.", "So 7 m."]),
        ("Mr. Fox and J. Smith, e.g. Anna. They go.", ["Mr. Fox and J. Smith, e.g. Anna.", "They go."]),
        ("Let $f(x) = 1. X$ be given. Then $x!$ Yes.", ["Let $f(x) = 1. X$ be given.", "Then $x!$ Yes."]),
        ("It is 3+4 = 7\nThen 7-5 = 2", ["It is 3+4 = 7", "Then 7-5 = 2"]),
        ("We add\nthe numbers,\nAnn's first", ["We add the numbers, Ann's first"]),
        (
            "So \\[x. Y\n=2.\\]Then \\[z\\]Q and $$a.$$\nSo $b$.",
            ["So \\[x. Y =2.\\]", "Then \\[z\\]Q and $$a.$$", "So $b$."],
        ),
        ("Then $(-2)5 = 0.$ Solving, $X. Y$ is.", ["Then $(-2)5 = 0.$", "Solving, $X. Y$ is."]),
        ("Pay 5 m. $X$ is.", ["Pay 5 m.", "$X$ is."]),
        ("A\nline. And\n\nanother", ["A line.", "And", "another"]),
        ('He said "no." Then he left!', ['He said "no."', "Then he left!"]),
        ("We get\n\\[ a. \n\n B \\]\nSo it is.", ["We get \\[ a. B \\]", "So it is."]),
    ],
)
def test_sentences(text: str, steps: list[str]):
    assert by_sentences(text) == steps
    assert similarity(text, steps) == 1.0


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a = 1\n\n  b =  2 \n", ["a = 1", "b = 2"]),
        ("so\n\\begin{align}x\n=1\\end{align}\nend", ["so", "\\begin{align}x =1\\end{align}", "end"]),
        ("it costs $3\nand $4", ["it costs $3", "and $4"]),
        ("Step 1: a\n**Step 2.** b", ["a", "b"]),
        ("  \n", []),
    ],
)
def test_lines(text: str, steps: list[str]):
    assert by_lines(text) == steps


def test_the_steps_of_a_reply_are_parsed_without_their_marks():
    assert parse_steps("Step 1: a\n b\n**Step 2:** c\nstep 3. d") == ["a b", "c", "d"]
    assert parse_steps("Here you are:\nStep 1: a") == [], "words of the annotator's own are no step"
    assert parse_steps("a\nb") == []


def test_similarity_sees_every_altered_letter_but_no_white_space_and_no_marks():
    solution = "First, 2+3 = 5.\nThen 5*2 = 10."
    assert similarity(solution, ["First, 2+3=5.", "Then 5*2 = 10."]) == 1.0
    assert similarity("Step 1: a\nStep 2: b", ["a", "b"]) == 1.0
    one_digit = similarity(solution, ["First, 2+3 = 6.", "Then 5*2 = 10."])
    assert 0.9 < one_digit < 1.0
    assert similarity(solution, ["First, 2+3 = 5."]) < one_digit


def test_the_last_box_must_survive():
    assert keeps_box(r"so \boxed{1 2}", [r"so \boxed{12}"]) is False
    assert keeps_box(r"\boxed{1}, no, \boxed{2}", [r"\boxed{1}, no,", r"\boxed{2}"])
    assert not keeps_box(r"so \boxed{1}", ["so 1"])
    assert keeps_box("so 1", ["so 1"])


def test_an_answer_is_boxed_once():
    assert with_box(["a", "b"], "2") == ["a", "b \\boxed{2}"]
    assert with_box(["b \\boxed{2}"], "2") == ["b \\boxed{2}"]
    assert with_box(["a"], None) == ["a"]
