"""Fewer questions, the same best and worst: adaptive comparisons against the full table of verdicts."""

import asyncio
import random
from itertools import permutations, product

import pytest

from psr.records import Candidate, Judgement
from psr.search.judges import JudgeSettings, hold, scores
from psr.search.rounds import ROUNDS, Comparisons, Orders, distinct
from psr.search.step_search import SearchSettings, expand
from tests.scripted import candidate

Table = dict[tuple[int, int], int | None]


def random_table(rng: random.Random, candidates: tuple[Candidate, ...], noise: float) -> Table:
    """A verdict for every ordered pair: by a hidden worth with ties, or with the probability `noise` anything."""
    worth = {one.text: rng.randrange(4) for one in candidates}
    table: Table = {}
    for i, j in permutations(range(len(candidates)), 2):
        a, b = worth[candidates[i].text], worth[candidates[j].text]
        table[i, j] = rng.choice((i, j, None)) if rng.random() < noise else i if a > b else j if b > a else i
    return table


def judged(
    candidates: tuple[Candidate, ...], table: Table, comparisons: Comparisons, orders: Orders
) -> list[Judgement]:
    async def ask(questions: list[tuple[int, int]]) -> list[Judgement]:
        return [Judgement(i, j, table[i, j]) for i, j in questions]

    return asyncio.run(hold(candidates, JudgeSettings(comparisons=comparisons, orders=orders), ask))


def cases(count: int, widths: range, seed: int = 0) -> list[tuple[tuple[Candidate, ...], Table]]:
    """Random candidates, some of them equal, and verdicts from orderly to arbitrary."""
    rng, made = random.Random(seed), []
    for _ in range(count):
        width = rng.choice(widths)
        candidates = tuple(candidate(rng.choice("abcdefgh")) for _ in range(width))
        made.append((candidates, random_table(rng, candidates, rng.choice([0.0, 0.2, 1.0]))))
    return made


@pytest.mark.parametrize("orders", ["both", "one"])
def test_adaptive_finds_the_best_the_worst_and_the_ties_of_the_full_table(orders: Orders):
    fewer = tied = 0
    for candidates, table in cases(300, range(1, 9)):
        full, some = (judged(candidates, table, how, orders) for how in ("round_robin", "adaptive"))  # type: ignore[arg-type]
        expected, got = (expand(0, candidates, judgements, SearchSettings()) for judgements in (full, some))
        assert (got.chosen, got.rejected, got.event) == (expected.chosen, expected.rejected, expected.event)
        assert got.margin > 0 or got.event == "tied"
        assert len({(j.first, j.second) for j in some}) == len(some) <= len(full)
        fewer, tied = fewer + (len(some) < len(full)), tied + (got.event == "tied")
    assert fewer > 60 and tied > 15


def test_adaptive_spares_a_quarter_of_the_questions_on_eight_different_candidates():
    rng, asked = random.Random(4), 0
    for _ in range(60):
        candidates = tuple(candidate(text) for text in "abcdefgh")
        asked += len(judged(candidates, random_table(rng, candidates, 0.2), "adaptive", "both"))
    assert asked < 0.75 * 60 * 8 * 7


@pytest.mark.parametrize("orders", ["both", "one"])
def test_adaptive_asks_nothing_once_every_completion_of_the_table_agrees(orders: Orders):
    """Before its last round there is a way to fill the rest of the table that changes the best or the worst."""
    for candidates, table in cases(40, range(2, 4), seed=1):
        rounds = ROUNDS["adaptive"](distinct(candidates), orders)
        known: list[Judgement] = []
        questions = next(rounds, [])
        while questions:
            assert len(outcomes(candidates, known, orders)) > 1
            known += [Judgement(i, j, table[i, j]) for i, j in questions]
            try:
                questions = rounds.send([table[question] for question in questions])
            except StopIteration:
                break
        assert len(outcomes(candidates, known, orders)) == 1


def outcomes(candidates: tuple[Candidate, ...], known: list[Judgement], orders: Orders) -> set[tuple[int, int]]:
    """Best and worst under every way to answer the questions that are open."""
    asked = {(j.first, j.second) for j in known}
    every = [question for round_ in ROUNDS["round_robin"](distinct(candidates), orders) for question in round_]
    rest = [question for question in every if question not in asked]
    found = set()
    for winners in product(*((i, j, None) for i, j in rest)):
        filled = known + [Judgement(*question, winner) for question, winner in zip(rest, winners, strict=True)]
        wins = scores(candidates, filled)
        found.add((wins.index(max(wins)), wins.index(min(wins))))
    return found


def test_knockout_finds_the_best_and_the_worst_of_an_orderly_table_with_fewer_questions():
    rng = random.Random(2)
    for width in range(2, 9):
        candidates = tuple(candidate(text) for text in rng.sample("abcdefgh", width))
        table: Table = {(i, j): min(i, j, key=lambda k: candidates[k].text) for i, j in permutations(range(width), 2)}
        judgements = judged(candidates, table, "knockout", "both")
        node = expand(0, candidates, judgements, SearchSettings())
        texts = sorted(one.text for one in candidates)
        assert [candidates[node.chosen].text, candidates[node.rejected].text] == [texts[0], texts[-1]]
        assert len(judgements) <= 2 * (3 * width / 2)
        assert width < 5 or len(judgements) < width * (width - 1)


def test_knockout_mostly_agrees_where_verdicts_are_noisy():
    same = {"chosen": 0, "rejected": 0}
    some = [(c, t) for c, t in cases(300, range(6, 7), seed=3) if len(distinct(c)) > 3]
    for candidates, table in some:
        full, quick = (
            expand(0, candidates, judged(candidates, table, how, "both"), SearchSettings())  # type: ignore[arg-type]
            for how in ("round_robin", "knockout")
        )
        for name in same:
            same[name] += candidates[getattr(full, name)].text == candidates[getattr(quick, name)].text
    assert len(some) / 3 < same["chosen"] < len(some)
    assert len(some) / 3 < same["rejected"] < len(some)


def test_what_follows_from_verdicts_counts_only_where_nobody_was_asked():
    three = tuple(candidate(text) for text in "abc")
    chain = [Judgement(0, 1, 0), Judgement(1, 2, 1)]
    assert scores(three, chain) == (2, 1, 0)
    assert scores(three, [*chain, Judgement(0, 2, None)]) == (1, 1, 0)
    assert scores(three, [*chain, Judgement(0, 2, 2)]) == (1, 1, 1)
