"""Records: what a trajectory amounts to (solution, pairs), and that its JSON form loses nothing."""

import json
from dataclasses import fields

from psr.records import (
    Candidate,
    GoldProblem,
    Judgement,
    Problem,
    StepNode,
    Trajectory,
    step_pairs,
    to_json,
    to_line,
    trajectory_from_json,
)
from tests.scripted import candidate


def node(
    depth: int, texts: list[str], scores: tuple[int, ...], event: str = "kept", final: bool = False, **changes: int
) -> StepNode:
    chosen, rejected = scores.index(max(scores)), scores.index(min(scores))
    judgements = (Judgement(0, 1, 0, "A is better [[A]]"), Judgement(1, 0, None, 'no verdict \u2028 "quoted" \n'))
    candidates = tuple(candidate(text, final=final) for text in texts)
    return StepNode(depth, candidates, judgements, scores, chosen, rejected, event, **changes)  # type: ignore[arg-type]


NODES = (
    node(0, ["a", "b"], (1, 0)),
    node(1, ["wrong", "way"], (1, 0), "rolled_back"),
    node(2, ["x", "y"], (0, 0), "tied"),
    node(1, ["d", "c", "e"], (1, 2, 0)),
    node(2, ["end", "fin"], (1, 0), final=True),
)
TRAJECTORY = Trajectory(Problem("p/1", "1+1"), (7, 8), NODES, True, "M1", 2.5)


def ids(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def test_a_trajectory_survives_json_exactly():
    text = to_line(TRAJECTORY)
    assert text == json.dumps(to_json(TRAJECTORY), ensure_ascii=False)
    again = trajectory_from_json(text)
    assert again == TRAJECTORY
    assert again.seconds == TRAJECTORY.seconds
    assert "\n" not in text
    for one in again.nodes:
        assert isinstance(one.scores, tuple)
        assert all(isinstance(c, Candidate) and isinstance(c.token_ids, tuple) for c in one.candidates)
        assert all(isinstance(j, Judgement) for j in one.judgements)


def test_how_long_a_search_took_does_not_make_it_another():
    assert Trajectory(TRAJECTORY.problem, (7, 8), NODES, True, "M1", 99.0) == TRAJECTORY


def test_the_solution_is_made_of_the_kept_nodes_alone():
    assert TRAJECTORY.kept == (NODES[0], NODES[3], NODES[4])
    assert TRAJECTORY.solution == "acend"


def test_pairs_come_from_kept_nodes_and_their_prompt_is_problem_and_chosen_steps():
    pairs = step_pairs(TRAJECTORY)
    assert [(p.depth, p.prompt_ids, p.chosen_ids, p.rejected_ids, p.margin) for p in pairs] == [
        (0, (7, 8), ids("a"), ids("b"), 1),
        (1, (7, 8, *ids("a")), ids("c"), ids("e"), 2),
        (2, (7, 8, *ids("ac")), ids("end"), ids("fin"), 1),
    ]
    assert {pair.problem_id for pair in pairs} == {"p/1"}


def test_min_margin_drops_close_pairs_and_leaves_the_prompts_of_the_others():
    [pair] = step_pairs(TRAJECTORY, min_margin=2)
    assert (pair.prompt_ids, pair.chosen_ids) == ((7, 8, *ids("a")), ids("c"))


def test_a_kept_node_without_a_winner_makes_no_pair_whatever_the_margin():
    tied = Trajectory(Problem("p", "1"), (7,), (node(0, ["a", "b"], (0, 0)), node(1, ["c", "d"], (1, 0))), False, "M1")
    [pair] = step_pairs(tied, min_margin=0)
    assert (pair.prompt_ids, pair.chosen_ids) == ((7, *ids("a")), ids("c"))


def test_a_problem_of_the_iterations_has_no_field_for_an_answer():
    assert [f.name for f in fields(Problem)] == ["id", "problem"]
    assert GoldProblem("1", "1+1", "2").without_answer() == Problem("1", "1+1")
