"""Summary figures of a set of searched problems. Knows trajectories only; no answer, no model."""

from collections.abc import Iterable
from typing import NamedTuple

from psr.records import StepNode, Trajectory


def mean(values: Iterable[float]) -> float | None:
    """The mean, or None of no values."""
    values = list(values)
    return sum(values) / len(values) if values else None


class Tally(NamedTuple):
    """What is counted of a search; the tally of many searches is the sum of theirs.

    Judging is counted on all nodes; what the pairs are like, on the kept ones.
    """

    problems: int = 0
    too_long: int = 0
    finished: int = 0
    finished_steps: int = 0
    expansions: int = 0
    tied: int = 0
    rolled_back: int = 0
    verdicts: int = 0
    unparsable: int = 0
    first_wins: int = 0
    both_orders: int = 0
    orders_agree: int = 0
    distinct: int = 0
    kept: int = 0
    kept_tokens: int = 0
    differ: int = 0
    longer_chosen: int = 0


def tally(trajectory: Trajectory) -> Tally:
    """What is counted of one search."""
    nodes, kept = trajectory.nodes, trajectory.kept
    verdicts = [judgement for node in nodes for judgement in node.judgements]
    agreements = [agreement for node in nodes for agreement in order_agreement(node)]
    longer = longer_chosen(kept)
    return Tally(
        problems=1,
        too_long=int(not nodes),
        finished=int(trajectory.finished),
        finished_steps=len(kept) * trajectory.finished,
        expansions=len(nodes),
        tied=sum(node.event == "tied" for node in nodes),
        rolled_back=sum(node.event == "rolled_back" for node in nodes),
        verdicts=len(verdicts),
        unparsable=sum(judgement.winner is None for judgement in verdicts),
        first_wins=sum(judgement.winner == judgement.first for judgement in verdicts),
        both_orders=len(agreements),
        orders_agree=sum(agreements),
        distinct=sum(len({c.text for c in node.candidates}) for node in nodes),
        kept=len(kept),
        kept_tokens=sum(len(node.candidates[node.chosen].token_ids) for node in kept),
        differ=len(longer),
        longer_chosen=sum(longer),
    )


def total(tallies: Iterable[Tally]) -> Tally:
    """The sum of tallies, which are not held."""
    so_far = Tally()
    for one in tallies:
        so_far = Tally(*(a + b for a, b in zip(so_far, one, strict=True)))
    return so_far


def search_summary(found: Tally, pairs: int) -> dict[str, float | int | None]:
    """Counts and shares of a search: what was kept and rolled back, and how the judge behaved."""
    return {
        "problems": found.problems,
        "too_long": found.too_long,
        "finished": _share(found.finished, found.problems),
        "pairs": pairs,
        "expansions": found.expansions,
        "tied": found.tied,
        "rolled_back": found.rolled_back,
        "verdicts": found.verdicts,
        "unparsable": _share(found.unparsable, found.verdicts),
        "first_wins": _share(found.first_wins, found.verdicts - found.unparsable),
        "orders_agree": _share(found.orders_agree, found.both_orders),
        "distinct_candidates": _share(found.distinct, found.expansions),
        "longer_chosen": _share(found.longer_chosen, found.differ),
        "steps_per_solution": _share(found.finished_steps, found.finished),
        "step_length_tokens": _share(found.kept_tokens, found.kept),
    }


def _share(part: int, of: int) -> float | None:
    return part / of if of else None


def order_agreement(node: StepNode) -> list[bool]:
    """For every pair asked in both orders with two verdicts: whether they name the same winner."""
    winners: dict[frozenset[int], list[int]] = {}
    for judgement in node.judgements:
        if judgement.winner is not None:
            winners.setdefault(frozenset((judgement.first, judgement.second)), []).append(judgement.winner)
    return [two[0] == two[1] for two in winners.values() if len(two) == 2]


def longer_chosen(nodes: Iterable[StepNode]) -> list[bool]:
    """For every pair of different length: whether the longer step was the chosen one (length bias)."""
    sides = [(len(n.candidates[n.chosen].token_ids), len(n.candidates[n.rejected].token_ids)) for n in nodes]
    return [chosen > rejected for chosen, rejected in sides if chosen != rejected]
