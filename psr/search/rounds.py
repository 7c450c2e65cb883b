"""Which verdicts to ask for, round after round, until it is clear which candidate is best and which is worst.

Plain generators: they yield the questions of a round, pairs (shown as A, shown as B) of candidate indices, and are sent
the winners, an index or None for each. The questions of a round are judged concurrently, so few rounds mean low latency
and few questions mean low cost. Knows indices and counts. Does not know who judges, or what a candidate says.
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
    """The index of the first candidate with each distinct text, in order, and how many candidates have that text."""
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
    """What is known about two candidates: the questions still `to_ask`, in order, and the `winner` so far, if any."""

    to_ask: list[Question]
    winner: int | None = None
    asked: bool = False

    def can_win(self, i: int) -> bool:
        """Whether i has beaten the other or still may."""
        return self.winner == i or (not self.asked and bool(self.to_ask))

    def has_won(self, i: int) -> bool:
        return self.winner == i and not self.to_ask

    def take(self, winner: int | None) -> None:
        """Record the verdict on the first question of `to_ask`."""
        # A pair is won only if both orders agree. So no winner, or a disagreement, settles it: the other order is moot.
        agreed = winner is not None and (not self.asked or winner == self.winner)
        self.winner, self.asked = (winner if agreed else None), True
        self.to_ask = self.to_ask[1:] if agreed else []


def adaptive(counts: Mapping[int, int], orders: Orders) -> Rounds:
    """Stops when no open verdict can change the best or the worst candidate, ties between scores included.

    Best is the first with the highest score, worst the first with the lowest (`counts` is in the order of indices). A
    candidate is certainly the best if, with no further win, it is still ahead of every other candidate with all of that
    one's open pairs won; the mirror image holds for the worst. All open pairs of one candidate can be won at once, so
    the bound is tight: the rule is exact, and stops as early as the verdicts so far allow.
    """
    pairs = {frozenset(pair): _Pair(asked_in(orders, *pair)) for pair in combinations(counts, 2)}

    def score(i: int, wins: Callable[[_Pair], bool]) -> int:
        return sum(counts[j] for j in counts if j != i and wins(pairs[frozenset((i, j))]))

    while True:
        # Bounds on the final score of every candidate, a win over a text counting once for each candidate that has it.
        low = {i: score(i, lambda pair, i=i: pair.has_won(i)) for i in counts}  # type: ignore[misc]
        high = {i: score(i, lambda pair, i=i: pair.can_win(i)) for i in counts}  # type: ignore[misc]
        # Ranks (score, index), smaller first, with the sign of the score so that the first index wins a tie in both.
        best = _question(pairs, {i: (-high[i], i) for i in counts}, {i: (-low[i], i) for i in counts})
        worst = _question(pairs, {i: (low[i], i) for i in counts}, {i: (high[i], i) for i in counts})
        # One question for each end and round: its verdict decides which question is worth asking next.
        questions = list(dict.fromkeys(question for question in (best, worst) if question is not None))
        if not questions:
            return
        winners = yield questions
        for question, winner in zip(questions, winners, strict=True):
            pairs[frozenset(question)].take(winner)


def _question(
    pairs: Mapping[frozenset[int], _Pair], hope: Mapping[int, tuple[int, int]], fear: Mapping[int, tuple[int, int]]
) -> Question | None:
    """The next question that helps to settle who ranks first, or None where that is settled.

    `hope[i]` is the rank of i, a score and an index, if all its open pairs turn out in its favour, `fear[i]` if none
    does; smaller ranks first. Any order of questions gives the exact result; a good one needs fewer.
    """
    leader = min(fear, key=lambda i: fear[i])
    # Whoever cannot get ahead of the leader even at best is out of the race.
    rivals = [i for i in hope if i != leader and hope[i] < fear[leader]]
    if not rivals:
        return None
    # Ask first about the pair that ranks best at the midpoint of hope and fear: between two front runners one verdict
    # puts one of them ahead and the other behind.
    promise = {i: (hope[i][0] + fear[i][0], hope[i]) for i in hope}
    open_pairs = [(pair, known.to_ask[0]) for pair, known in pairs.items() if known.to_ask and pair & {leader, *rivals}]
    return min(open_pairs, key=lambda item: (sorted(promise[i] for i in item[0]), item[1]))[1]


def knockout(counts: Mapping[int, int], orders: Orders) -> Rounds:
    """The best wins a knockout tournament; the worst is left of a second one, in which the losers go on. Approximate.

    In a match without a winner the first candidate goes on as the better. Pairs that were not played are decided by
    transitivity (`psr.search.judges.scores`).
    """
    # Both tournaments run side by side; their first round is the same and is asked once. Over w candidates: about
    # 1.5 w pairs in log2 w rounds, where a round robin has w (w - 1) / 2 pairs.
    best = worst = list(counts)
    while len(best) > 1 or len(worst) > 1:
        matches = list(dict.fromkeys([*_matches(best), *_matches(worst)]))
        winners = iter((yield [question for match in matches for question in asked_in(orders, *match)]))
        losers = {}
        for i, j in matches:
            named = {next(winners) for _ in asked_in(orders, i, j)}
            losers[i, j] = i if named == {j} else j
        best = [i + j - losers[i, j] for i, j in _matches(best)] + _bye(best)  # i + j - loser is the winner
        worst = [losers[match] for match in _matches(worst)] + _bye(worst)


def _matches(players: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(players[::2], players[1::2], strict=False))


def _bye(players: Sequence[int]) -> list[int]:
    """The player of an odd number who has no opponent and goes on to the next round."""
    return list(players[len(players) // 2 * 2 :])


ROUNDS: dict[Comparisons, Callable[[Mapping[int, int], Orders], Rounds]] = {
    "round_robin": round_robin,
    "adaptive": adaptive,
    "knockout": knockout,
}
