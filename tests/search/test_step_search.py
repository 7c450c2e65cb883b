"""Step search (equations 1-5): who extends the solution, what a tie undoes, and when the search is over."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerBase

from psr.engines.base import EngineError, PromptTooLong, Sampling
from psr.prompts.encoder import Encoder
from psr.records import Candidate, Judgement, Problem, Trajectory, step_pairs
from psr.search.step_search import SearchSettings, step_search
from tests.scripted import END, PreferenceJudge, ScriptedEngine, candidate

PROBLEM = Problem("p/0", "3+4")
PROMPT = "3+4\n"

Tree = dict[str, Sequence[Sequence[str]]]
"""Solution so far -> the candidates of the first visit, of the second, ...; the last repeats."""


class Search:
    """A search on a scripted tree; a candidate is worth its number, and steps are numbers on a line."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encoder: Encoder, tree: Tree) -> None:
        self.tree, self.encoder, self.visits = tree, encoder, dict.fromkeys(tree, 0)
        self.engine = ScriptedEngine(tokenizer, self.script)
        self.judge = PreferenceJudge(lambda text: float(text.strip().strip(".")))

    def script(self, prompt: str, sampling: Sampling) -> Sequence[str]:
        prefix = prompt.removeprefix(PROMPT)
        visits = self.tree[prefix]
        visit = min(self.visits[prefix], len(visits) - 1)
        self.visits[prefix] += 1
        return visits[visit]

    def run(self, settings: SearchSettings | None = None, problem: Problem = PROBLEM) -> Trajectory:
        settings = settings or SearchSettings()
        return asyncio.run(step_search(problem, self.engine, self.judge, self.encoder, settings))


@pytest.fixture
def search(tokenizer: PreTrainedTokenizerBase, encoder: Encoder) -> Callable[[Tree], Search]:
    return lambda tree: Search(tokenizer, encoder, tree)


def events(trajectory: Trajectory) -> list[tuple[int, str]]:
    return [(node.depth, node.event) for node in trajectory.nodes]


def test_the_best_candidate_extends_the_solution_until_an_answer_is_final(search):
    one = search({"": [["1\n", "3\n", "2\n"]], "3\n": [["5\n", "4\n"]], "3\n5\n": [["7", "8" + END, "6\n"]]})
    trajectory = one.run()
    assert trajectory.solution == "3\n5\n8"
    assert trajectory.finished
    assert events(trajectory) == [(0, "kept"), (1, "kept"), (2, "kept")]
    assert [(node.chosen, node.rejected) for node in trajectory.nodes] == [(1, 0), (0, 1), (1, 2)]
    assert [node.scores for node in trajectory.nodes] == [(0, 2, 1), (1, 0), (1, 2, 0)]
    assert one.engine.prompts == [PROMPT, PROMPT + "3\n", PROMPT + "3\n5\n"]
    assert [steps for _, steps, _ in one.judge.asked] == [(), ("3\n",), ("3\n", "5\n")]


def test_an_answer_that_is_not_the_best_does_not_end_the_search(search):
    trajectory = search({"": [["1" + END, "2\n"]], "2\n": [["3" + END, "1\n"]]}).run()
    assert trajectory.solution == "2\n3"


def test_among_equals_the_first_is_chosen_and_the_first_is_rejected(search):
    [node] = search({"": [["1\n", "1.\n", "2" + END, "2." + END]]}).run().nodes
    assert node.scores == (0, 0, 2, 2)
    assert (node.chosen, node.rejected) == (2, 0)


def test_candidates_cut_off_before_their_end_are_dropped(search):
    [node] = search({"": [["9…", "1\n", "2" + END, "8…"]]}).run().nodes
    assert [c.text for c in node.candidates] == ["1\n", "2"]


def test_a_tie_discards_the_step_before_and_its_pair(search):
    one = search(
        {
            "": [["1\n", "2\n"]],
            "2\n": [["4\n", "3\n"], ["6\n", "5\n"]],
            "2\n4\n": [["7\n", "7\n"]],
            "2\n6\n": [["9" + END, "8\n"]],
        }
    )
    trajectory = one.run()
    assert events(trajectory) == [(0, "kept"), (1, "rolled_back"), (2, "tied"), (1, "kept"), (2, "kept")]
    assert trajectory.solution == "2\n6\n9"
    assert one.engine.prompts == [PROMPT + prefix for prefix in ("", "2\n", "2\n4\n", "2\n", "2\n6\n")]
    encode = one.encoder.plain
    assert [(p.depth, p.prompt_ids, p.chosen_ids[:1]) for p in step_pairs(trajectory)] == [
        (0, tuple(encode(PROMPT)), tuple(encode("2"))),
        (1, tuple(encode(PROMPT + "2\n")), tuple(encode("6"))),
        (2, tuple(encode(PROMPT + "2\n6\n")), tuple(encode("9"))),
    ]


def test_ties_in_a_row_undo_step_after_step(search):
    trajectory = search(
        {"": [["1\n", "2\n"], ["4" + END, "3\n"]], "2\n": [["3\n", "2\n"], ["1\n"]], "2\n3\n": [["5\n", "5\n"]]}
    ).run()
    assert events(trajectory) == [(0, "rolled_back"), (1, "rolled_back"), (2, "tied"), (1, "tied"), (0, "kept")]
    assert trajectory.solution == "4"
    assert len(step_pairs(trajectory)) == 1


def test_a_tie_at_the_first_step_has_nothing_to_discard_and_is_searched_again(search):
    trajectory = search({"": [["1\n", "1\n"], ["2\n", "2\n"], ["3" + END, "2\n"]]}).run()
    assert events(trajectory) == [(0, "tied"), (0, "tied"), (0, "kept")]
    assert trajectory.finished


def test_no_candidate_that_ends_its_step_counts_as_a_tie(search):
    trajectory = search({"": [["1\n", "2\n"], ["4" + END, "3\n"]], "2\n": [["9…", "9…"]]}).run()
    assert events(trajectory) == [(0, "rolled_back"), (1, "tied"), (0, "kept")]
    assert trajectory.nodes[1].candidates == ()


def test_ties_advance_goes_on_with_the_first_candidate_and_makes_no_pair(search):
    tree: Tree = {"": [["2\n", "2.\n"]], "2\n": [["4" + END, "3\n"]]}
    trajectory = search(tree).run(SearchSettings(ties="advance"))
    assert events(trajectory) == [(0, "kept"), (1, "kept")]
    assert trajectory.solution == "2\n4"
    assert [pair.depth for pair in step_pairs(trajectory)] == [1]


def test_one_candidate_is_enough_where_ties_advance(search):
    assert search({"": [["2\n"]], "2\n": [["4" + END]]}).run(SearchSettings(width=1, ties="advance")).finished


def test_out_of_iterations_it_is_unfinished_and_keeps_its_pairs(search):
    one = search({"": [["1\n", "2\n"]], "2\n": [["4\n", "3\n"]], "2\n4\n": [["7\n", "6\n"]]})
    trajectory = one.run(SearchSettings(max_iterations=3))
    assert not trajectory.finished
    assert trajectory.solution == "2\n4\n7\n"
    assert len(step_pairs(trajectory)) == 3


def test_roll_backs_count_as_iterations(search):
    one = search({"": [["1\n", "2\n"]], "2\n": [["3\n", "3\n"]]})
    trajectory = one.run(SearchSettings(max_iterations=7))
    assert [event for _, event in events(trajectory)] == ["rolled_back", "tied"] * 3 + ["kept"]
    assert not trajectory.finished
    assert [pair.depth for pair in step_pairs(trajectory)] == [0]


def test_pairs_train_on_the_engines_own_tokens(tokenizer: PreTrainedTokenizerBase, encoder: Encoder):
    one = Search(tokenizer, encoder, {"": [["1\n", "2\n"]], "2\n": [["4" + END, "3\n"]]})
    first, second = step_pairs(one.run())
    assert (first.chosen_ids, first.rejected_ids) == (tuple(encoder.plain("2\n")), tuple(encoder.plain("1\n")))
    assert second.chosen_ids == encoder.completion("4")
    assert second.rejected_ids == encoder.completion("3\n", final=False)
    assert second.prompt_ids == first.prompt_ids + first.chosen_ids == tuple(encoder.plain(PROMPT + "2\n"))


def test_steps_are_sampled_as_the_settings_say(search):
    one = search({"": [["1\n", "2" + END]]})
    one.run(SearchSettings(width=5, temperature=0.7, top_p=0.8, max_step_tokens=9))
    [sampling] = one.engine.samplings
    assert replace(sampling, seed=0) == Sampling(9, 0.7, 0.8, 5, 0, ("\n",))


def test_every_seed_problem_and_iteration_samples_anew_and_again_the_same(search):
    tree: Tree = {"": [["1\n", "2\n"]], "2\n": [["3\n", "3\n"]]}

    def seeds(seed: int, name: str) -> list[int]:
        one = search(tree)
        one.run(SearchSettings(seed=seed), Problem(name, "3+4"))
        return [sampling.seed for sampling in one.engine.samplings]

    assert len(set(seeds(0, "a"))) == 20
    assert seeds(0, "a") == seeds(0, "a")
    assert not set(seeds(0, "a")) & set(seeds(0, "b"))
    assert not set(seeds(0, "a")) & set(seeds(1, "a"))


def test_the_same_replies_give_the_same_trajectory(search):
    tree: Tree = {"": [["1\n", "2\n"]], "2\n": [["3\n", "3\n"], ["5" + END, "4\n"]]}
    assert search(tree).run() == search(tree).run()


def test_a_trajectory_names_the_weights_that_made_it(search):
    one = search({"": [["1\n", "2" + END]]})
    one.engine.version = lambda: "M3"
    assert one.run().weights_version == "M3"


def test_weights_that_change_under_way_are_an_error(search):
    one = search({"": [["1\n", "2\n"]], "2\n": [["4" + END, "3\n"]]})
    one.engine.version = lambda: f"M{len(one.engine.prompts)}"
    with pytest.raises(EngineError, match=r"p/0 was answered by different weights: M1, M2"):
        one.run()


def test_a_problem_without_room_is_an_error_and_a_solution_without_merely_ends(search):
    def too_long_from(prefix: str) -> Search:
        one = search({"": [["1\n", "2\n"]], "2\n": [["4\n", "3\n"]]})

        def script(prompt: str, sampling: Sampling) -> Sequence[str]:
            if prompt == PROMPT + prefix:
                raise PromptTooLong("no room")
            return one.script(prompt, sampling)

        one.engine.script = script
        return one

    with pytest.raises(PromptTooLong):
        too_long_from("").run()
    trajectory = too_long_from("2\n4\n").run()
    assert not trajectory.finished
    assert trajectory.solution == "2\n4\n"
    assert len(step_pairs(trajectory)) == 2


@pytest.mark.parametrize(("depth", "solution"), [(0, ""), (1, "2\n")])
def test_a_judge_without_room_ends_the_solution_too(search, depth: int, solution: str):
    one = search({"": [["1\n", "2\n"]], "2\n": [["4\n", "3\n"]]})

    async def judge(problem: Problem, steps: Sequence[str], candidates: Sequence[Candidate]) -> list[Judgement]:
        if len(steps) == depth:
            raise PromptTooLong("no room")
        return [Judgement(0, 1, 1)]

    one.judge = judge
    trajectory = one.run()
    assert trajectory.solution == solution
    assert not trajectory.finished


@pytest.mark.parametrize("name", ["width", "max_iterations", "max_step_tokens"])
def test_settings_that_cannot_work_are_named(name: str):
    with pytest.raises(ValueError, match=rf"search\.{name} is 0"):
        SearchSettings(**{name: 0})


def test_the_papers_settings_are_the_defaults():
    settings = SearchSettings()
    assert (settings.width, settings.temperature, settings.top_p, settings.max_iterations) == (6, 0.5, 0.95, 20)
    assert settings.ties == "rollback"


def test_a_step_in_the_papers_format_does_not_carry_the_next_marker(bpe):
    """The engine stops within the next step's "Step 2"; the prefix of the next expansion must not hold it twice."""
    from psr.prompts.templates import Prompts

    encoder = Encoder(bpe, Prompts())
    head = encoder.text(encoder.reason("5"))
    replies = {
        head: ["Step 1: Then 3.\nStep 2", "Step 1: Then 4.\nStep "],
        head + "Step 1: Then 4.\n": ["Step 2: Hence 5." + END, "Step 2: Hence 1." + END],
    }
    engine = ScriptedEngine(bpe, lambda prompt, sampling: replies[prompt])
    judge = PreferenceJudge(lambda text: float(text.strip()[-2]))
    trajectory = asyncio.run(step_search(Problem("p", "5"), engine, judge, encoder, SearchSettings()))
    assert trajectory.solution == "Step 1: Then 4.\nStep 2: Hence 5."
    assert trajectory.finished
    assert candidate("Step 1: Then 4.\n", encoder).token_ids == trajectory.nodes[0].candidates[1].token_ids
