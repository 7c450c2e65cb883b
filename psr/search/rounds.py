"""Which verdicts to ask for, round after round, until it is clear which candidate is best and which is worst.

Plain generators: they yield the questions of a round, pairs (shown as A, shown as B) of candidate indices, and are sent
the winners, an index or None for each. Knows indices and counts. Does not know who judges, or what a candidate says.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from psr.records import Candidate

Question = tuple[int, int]
Rounds = Generator[list[Question], list[int | None], None]
Orders = Literal["both", "one"]
Comparisons = Literal["round_robin", "adaptive", "knockout"]


def distinct(candidates: Sequence[Candidate]) -> dict[int, int]:
    """The first candidate of every text, in order, and how many candidates say the same."""
    firsts: dict[str, int] = {}
    for i, candidate in enumerate(candidates):
        firsts.setdefault(candidate.text, i)
    counts = dict.fromkeys(firsts.values(), 0)
    for candidate in candidates:
        counts[firsts[candidate.text]] += 1
    return counts


def asked_in(orders: Orders, i: int, j: int) -> list[Question]:
    return [(i, j), (j, i)] if orders == "both" else [(i, j)]


def round_robin(counts: Mapping[int, int], orders: Orders) -> Rounds:
    """Every pair, in one round: the paper's."""
    questions = [question for i, j in combinations(counts, 2) for question in asked_in(orders, i, j)]
    if questions:
        yield questions


@dataclass
class _Pair:
    """What is known of two candidates, `to_ask` in the order of asking; `winner` so far: None is nobody."""

    to_ask: list[Question]
    winner: int | None = None
    asked: bool = False

    def can_win(self, i: int) -> bool:
        """Whether i may yet beat the other, or has."""
        return self.winner == i or (not self.asked and bool(self.to_ask))

    def has_won(self, i: int) -> bool:
        return self.winner == i and not self.to_ask

    def take(self, winner: int | None) -> None:
        """The verdict on the first question of `to_ask`; the other order cannot mend a verdict that names nobody."""
        agreed = winner is not None and (not self.asked or winner == self.winner)
        self.winner, self.asked = (winner if agreed else None), True
        self.to_ask = self.to_ask[1:] if agreed else []


def adaptive(counts: Mapping[int, int], orders: Orders) -> Rounds:
    """Stops when no verdict that is not asked for can change the best or the worst, ties between scores included.

    Best is the first with the highest score, worst the first with the lowest (`counts` is in the order of indices). A
    candidate is best whatever comes if even with no further win it is ahead of each other with all the wins still open
    to that one, which can all come true at once; the same the other way round for the worst. So the rule is exact, and
    stops as early as the questions asked so far allow.
    """
    pairs = {frozenset(pair): _Pair(asked_in(orders, *pair)) for pair in combinations(counts, 2)}

    def score(i: int, wins: Callable[[_Pair], bool]) -> int:
        return sum(counts[j] for j in counts if j != i and wins(pairs[frozenset((i, j))]))

    while True:
        low = {i: score(i, lambda pair, i=i: pair.has_won(i)) for i in counts}  # type: ignore[misc]
        high = {i: score(i, lambda pair, i=i: pair.can_win(i)) for i in counts}  # type: ignore[misc]
        # Lower is better in both: so the first index comes first where scores are equal.
        best = _question(pairs, {i: (-high[i], i) for i in counts}, {i: (-low[i], i) for i in counts})
        worst = _question(pairs, {i: (low[i], i) for i in counts}, {i: (high[i], i) for i in counts})
        questions = list(dict.fromkeys(question for question in (best, worst) if question is not None))
        if not questions:
            return
        winners = yield questions
        for question, winner in zip(questions, winners, strict=True):
            pairs[frozenset(question)].take(winner)


def _question(
    pairs: Mapping[frozenset[int], _Pair], hope: Mapping[int, tuple[int, int]], fear: Mapping[int, tuple[int, int]]
) -> Question | None:
    """The next question on who comes first, or None where that is settled.

    `hope[i]` is the rank of i, a score and an index, if all that is open goes its way, `fear[i]` if nothing does;
    smaller comes first. The first questions are about the one that promises most, half way between the two, and about
    its closest rivals: their verdicts put it ahead and the others behind at once. Any order is exact.
    """
    leader = min(fear, key=lambda i: fear[i])
    rivals = [i for i in hope if i != leader and hope[i] < fear[leader]]
    if not rivals:
        return None
    promise = {i: (hope[i][0] + fear[i][0], hope[i]) for i in hope}
    open_pairs = [(pair, known.to_ask[0]) for pair, known in pairs.items() if known.to_ask and pair & {leader, *rivals}]
    return min(open_pairs, key=lambda item: (sorted(promise[i] for i in item[0]), item[1]))[1]


def knockout(counts: Mapping[int, int], orders: Orders) -> Rounds:
    """The winner of an elimination tournament is best; one that goes on with the losers finds the worst. Approximate.

    In a match that nobody wins the first counts as the better. What was not played follows from what was: who beats
    the one that beats a third is better than the third (`psr.search.judges.scores`).
    """
    best = worst = list(counts)
    while len(best) > 1 or len(worst) > 1:
        matches = list(dict.fromkeys([*_matches(best), *_matches(worst)]))
        winners = iter((yield [question for match in matches for question in asked_in(orders, *match)]))
        losers = {}
        for i, j in matches:
            named = {next(winners) for _ in asked_in(orders, i, j)}
            losers[i, j] = i if named == {j} else j
        best = [i + j - losers[i, j] for i, j in _matches(best)] + _bye(best)
        worst = [losers[match] for match in _matches(worst)] + _bye(worst)


def _matches(players: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(players[::2], players[1::2], strict=False))


def _bye(players: Sequence[int]) -> list[int]:
    """Who has nobody to play against."""
    return list(players[len(players) // 2 * 2 :])


ROUNDS: dict[Comparisons, Callable[[Mapping[int, int], Orders], Rounds]] = {
    "round_robin": round_robin,
    "adaptive": adaptive,
    "knockout": knockout,
}
