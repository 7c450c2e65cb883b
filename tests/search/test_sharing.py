"""The best that a prefix cache could do, against the slow way of counting it."""

import random
from dataclasses import replace

from psr.engines.usage import Usage
from psr.prompts.encoder import Encoder
from psr.records import Judgement, Problem, StepNode, Trajectory
from psr.search.sharing import PrefixTree, best_usage, fewest_prompt_tokens, prefixes
from tests.scripted import candidate


def test_the_tree_finds_the_longest_known_prefix():
    rng, tree, seen = random.Random(0), PrefixTree(), []
    for _ in range(300):
        ids = tuple(rng.randrange(3) for _ in range(rng.randrange(1, 9)))
        known = max((n for n in range(len(ids) + 1) if any(old[:n] == ids[:n] for old in seen)), default=0)
        assert tree.add(ids) == known
        seen.append(ids)


def test_the_nodes_get_the_steps_that_they_continued(encoder: Encoder):
    def node(depth: int, text: str, event: str) -> StepNode:
        return StepNode(depth, (candidate(text, encoder),), (), (0,), 0, 0, event)  # type: ignore[arg-type]

    nodes = [node(0, "1\n", "kept"), node(1, "2\n", "rolled_back"), node(2, "3\n", "tied"), node(1, "4\n", "kept")]
    trajectory = Trajectory(Problem("p", "1+1"), (), tuple(nodes), False, "M1")
    assert ["".join(step.text for step in steps) for steps, _ in prefixes(trajectory)] == ["", "1\n", "1\n2\n", "1\n"]


def test_prompts_and_what_a_perfect_cache_holds_of_them(encoder: Encoder):
    steps = tuple(candidate(text, encoder) for text in ("a1+2=3\n", "a1+2=4\n"))
    judged = (Judgement(0, 1, 0), Judgement(1, 0, 0))
    first = StepNode(0, steps, judged, (1, 0), 0, 1, "kept")
    problem = Problem("p", "1+2+3")
    prompt = encoder.reason(problem.problem)
    usage = best_usage([Trajectory(problem, prompt, (first,), False, "M1")], encoder)
    asked = [encoder.judge("1+2+3", "", steps[i].text, steps[j].text) for i, j in ((0, 1), (1, 0))]
    # The first judge prompt begins like the prompt for solutions, the second like the first up to the result.
    shared = encoder.plain("1+2+3\nA a1+2=")
    assert usage["verdicts"] == Usage(2, sum(map(len, asked)), len(prompt) + len(shared))
    assert usage["candidates"] == Usage(2, 2 * len(prompt), len(prompt) - 1)
    again = best_usage([Trajectory(problem, prompt, (first, replace(first)), False, "M1")], encoder)
    assert again["candidates"].cached_tokens == 3 * (len(prompt) - 1)


def test_the_fewest_tokens_count_every_prefix_once(encoder: Encoder):
    steps = tuple(candidate(text, encoder) for text in ("a1+2=3\n", "a1+2=4\n"))
    judged = (Judgement(0, 1, 0), Judgement(1, 0, 0))
    kept = StepNode(0, steps, judged, (1, 0), 0, 1, "kept")
    last = StepNode(1, (candidate("b3+3=6", encoder),) * 2, (), (0, 0), 0, 0, "kept")
    problem = Problem("p", "1+2+3")
    prompt = encoder.reason(problem.problem)
    asked = [encoder.judge("1+2+3", "", steps[i].text, steps[j].text) for i, j in ((0, 1), (1, 0))]
    # The first judge prompt begins like the prompt for solutions, the second like the first up to the result; the
    # prompt for the second step has been computed and decoded, but for its last token.
    begun = len(prompt), len(encoder.plain("1+2+3\nA a1+2="))
    fewest = len(prompt) + sum(len(one) - known for one, known in zip(asked, begun, strict=True)) + 1
    assert fewest_prompt_tokens([Trajectory(problem, prompt, (kept, last), False, "M1")], encoder) == fewest
