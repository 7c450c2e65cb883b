"""EFT data from an exact verifier: every pair is one right and one wrong step of the policy at the same prefix."""

import random
from collections.abc import Sequence

from psr.curation.eft import verified_pairs
from psr.records import Problem, StepNode, Trajectory
from tests.scripted import adds_up, candidate

PROBLEM = "13+14-15"
FIRST = ["13+14=27\n", "13+14=28\n", "13+14:3+4=7,1+1=2=27\n", "13+14=28\n", "14\n"]
SECOND = ["27-15=12", "27-15=13"]


def explain(problem: str, steps: Sequence[str], a: str, b: str) -> str:
    return f"{problem} after {len(steps)}: {a} against {b}"


def node(depth: int, texts: list[str], event: str = "kept", chosen: int = 0) -> StepNode:
    candidates = tuple(candidate(text) for text in texts)
    scores = tuple(int(i == chosen) for i in range(len(texts)))
    return StepNode(depth, candidates, (), scores, chosen, (chosen + 1) % len(texts), event)  # type: ignore[arg-type]


def trajectory(*nodes: StepNode) -> Trajectory:
    return Trajectory(Problem("p", PROBLEM), (1,), nodes, True, "M0")


def test_a_pair_is_a_right_and_a_wrong_step_after_the_chosen_steps():
    rows = verified_pairs(trajectory(node(0, FIRST), node(1, SECOND)), adds_up, explain, random.Random(0))
    first, second = rows
    assert first["previous_steps"] == [] and second["previous_steps"] == ["13+14=27"]
    assert (second["problem"], second["chosen"], second["rejected"]) == (PROBLEM, *SECOND)
    for row in rows:
        assert adds_up(PROBLEM, row["previous_steps"], row["chosen"])
        assert not adds_up(PROBLEM, row["previous_steps"], row["rejected"])


def test_every_combination_of_distinct_right_and_wrong_steps_comes_at_most_once():
    rows = verified_pairs(trajectory(node(0, FIRST)), adds_up, None, random.Random(0), per_step=10)
    assert {(row["chosen"], row["rejected"]) for row in rows} == {
        (right.strip(), wrong.strip()) for right in (FIRST[0], FIRST[2]) for wrong in (FIRST[1], FIRST[4])
    }
    assert len(rows) == 4
    assert len({row["id"] for row in rows}) == 4
    assert len(verified_pairs(trajectory(node(0, FIRST)), adds_up, None, random.Random(0), per_step=3)) == 3


def test_the_explanations_say_which_side_adds_up_in_both_orders():
    [row] = verified_pairs(trajectory(node(0, FIRST)), adds_up, explain, random.Random(0))
    assert row["explanations"] == {
        "chosen_first": explain(PROBLEM, [], row["chosen"], row["rejected"]),
        "rejected_first": explain(PROBLEM, [], row["rejected"], row["chosen"]),
    }
    [bare] = verified_pairs(trajectory(node(0, FIRST)), adds_up, None, random.Random(0))
    assert "explanations" not in bare


def test_a_pair_that_cannot_be_explained_is_left_out():
    assert verified_pairs(trajectory(node(0, FIRST)), adds_up, lambda *_: None, random.Random(0)) == []


def test_steps_all_right_all_wrong_or_rolled_back_give_nothing():
    same = [FIRST[0], FIRST[2]], [FIRST[1], FIRST[4]]
    for texts in same:
        assert verified_pairs(trajectory(node(0, texts)), adds_up, None, random.Random(0)) == []
    for event in ("rolled_back", "tied"):
        assert verified_pairs(trajectory(node(0, FIRST, event)), adds_up, None, random.Random(0)) == []


def test_a_wrong_step_that_was_chosen_is_the_ground_of_the_next():
    after_wrong = node(1, ["28-15=13", "27-15=12"])
    rows = verified_pairs(trajectory(node(0, FIRST, chosen=1), after_wrong), adds_up, explain, random.Random(0))
    assert rows[1]["previous_steps"] == ["13+14=28"]
    assert rows[1]["chosen"] == "28-15=13"


def test_a_step_that_the_verifier_leaves_undecided_is_on_neither_side():
    def undecided(problem: str, steps: Sequence[str], text: str) -> bool | None:
        return None if text == "14" else adds_up(problem, steps, text)

    rows = verified_pairs(trajectory(node(0, FIRST)), undecided, None, random.Random(0), per_step=10)
    assert {text for row in rows for text in (row["chosen"], row["rejected"])} == {*(t.strip() for t in FIRST[:3])}
