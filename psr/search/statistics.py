"""Summary figures of a set of searched problems. Knows trajectories only; no answer, no model."""

from collections.abc import Iterable, Sequence

from psr.records import StepNode, Trajectory


def mean(values: Iterable[float]) -> float | None:
    """The mean, or None of no values."""
    values = list(values)
    return sum(values) / len(values) if values else None


def search_summary(trajectories: Sequence[Trajectory], pairs: int) -> dict[str, float | int | None]:
    """Counts and shares of a search: what was kept and rolled back, and how the judge behaved."""
    # Judging is measured on all nodes; what the pairs are like, on the kept ones.
    nodes = [node for trajectory in trajectories for node in trajectory.nodes]
    verdicts = [judgement for node in nodes for judgement in node.judgements]
    parsed = [judgement for judgement in verdicts if judgement.winner is not None]
    kept = [node for trajectory in trajectories for node in trajectory.kept]
    return {
        "problems": len(trajectories),
        "finished": mean(trajectory.finished for trajectory in trajectories),
        "pairs": pairs,
        "expansions": len(nodes),
        "tied": sum(node.event == "tied" for node in nodes),
        "rolled_back": sum(node.event == "rolled_back" for node in nodes),
        "verdicts": len(verdicts),
        "unparsable": mean(judgement.winner is None for judgement in verdicts),
        "first_wins": mean(judgement.winner == judgement.first for judgement in parsed),
        "orders_agree": mean(agreement for node in nodes for agreement in order_agreement(node)),
        "distinct_candidates": mean(len({c.text for c in node.candidates}) for node in nodes),
        "longer_chosen": mean(longer_chosen(kept)),
        "steps_per_solution": mean(len(trajectory.kept) for trajectory in trajectories if trajectory.finished),
        "step_length_tokens": mean(len(node.candidates[node.chosen].token_ids) for node in kept),
    }


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
