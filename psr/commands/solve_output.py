"""What `psr solve` shows of a search: a column per attempt, with candidates, verdicts, the path, and the answer.

Knows records and rich. Whatever a model wrote goes through `printable`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.rule import Rule
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from psr.answers import extract_boxed
from psr.records import Candidate, Judgement, StepNode
from psr.search.rounds import distinct
from psr.terminal.text import printable

EVENTS = {"kept": ("kept", "green"), "rolled_back": ("taken back", "yellow"), "tied": ("nobody won", "yellow")}
NARROW = 56
"""A column needs so many characters; with less room the attempts stand one below the other."""


@dataclass
class Attempt:
    """One way to solve the problem, as far as it has come.

    Args:
        title: who solves, and how.
        status: what is being done; empty before and after.
        nodes, waiting: of a search, as `WatchedJudge` has them.
        solution: the whole text once it is there, None before.
        finished: whether it came to its end.
        cost: what it took, in words.
        show_replies: also what the judge wrote.
    """

    title: str
    status: str = ""
    nodes: Sequence[StepNode] = ()
    waiting: Sequence[Candidate] = ()
    solution: str | None = None
    finished: bool = False
    cost: str = ""
    show_replies: bool = field(default=False, kw_only=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Rule(Text(printable(self.title), "bold"), align="left", style="dim")
        for node in self.nodes:
            yield from expansion(node, self.show_replies)
        if self.waiting:
            yield heading(f"Step {self.depth + 1}", "", "")
            yield from (candidate_line(one, "dim", "") for one in self.waiting)
        if self.status:
            yield Text(f"… {self.status}", "cyan")
        if self.solution is not None:
            yield from self.result()

    @property
    def depth(self) -> int:
        """How many steps the solution has."""
        return sum(node.event == "kept" for node in self.nodes)

    def counts(self) -> list[str]:
        """What became of the expansions of a search, in words; nothing of other ways to solve."""
        events = [node.event for node in self.nodes]
        said = {"kept": "step kept", "rolled_back": "step taken back", "tied": "tie"}
        return [plural(events.count(event), name) for event, name in said.items() if event in events]

    def result(self) -> list[RenderableType]:
        assert self.solution is not None
        boxed = extract_boxed(self.solution) if self.finished else None
        answer = Text.assemble(("answer ", "dim"), (printable(boxed or ""), "bold green"))
        if boxed is None:
            why = "no boxed answer" if self.finished else "no answer: the solution did not come to its end"
            answer = Text(why, "yellow")
        return [Text(), Text(printable(self.solution).strip()), answer, Text(self.cost, "dim")]


def plural(count: int, name: str) -> str:
    """ "1 step kept", "2 steps kept", "3 ties"."""
    word, space, rest = name.partition(" ")
    return f"{count} {word}{'' if count == 1 else 's'}{space}{rest}"


def heading(step: str, event: str, style: str) -> Text:
    return Text.assemble("\n", (step, "bold"), ("  " + event if event else "", style))


def expansion(node: StepNode, show_replies: bool) -> list[RenderableType]:
    """A step of the search: its candidates, the best first, each text once, and who beat whom."""
    event, style = EVENTS[node.event]
    lines: list[RenderableType] = [heading(f"Step {node.depth + 1}", event, style)]
    counts = distinct(node.candidates)
    names = {first: f"c{number}" for number, first in enumerate(counts, start=1)}
    first_of = {node.candidates[i].text: i for i in counts}
    chosen = first_of[node.candidates[node.chosen].text] if node.candidates else None
    rejected = first_of[node.candidates[node.rejected].text] if node.candidates and node.margin > 0 else None
    for i in sorted(counts, key=lambda i: (i != chosen, -node.scores[i], i)):
        role = "chosen" if i == chosen and node.event == "kept" else "rejected" if i == rejected else ""
        look = "bold green" if role == "chosen" else "red" if role == "rejected" else ""
        times = f", {counts[i]} times" if counts[i] > 1 else ""
        facts = f"{names[i]} {plural(node.scores[i], 'win')}{times}{', ' + role if role else ''}"
        lines.append(candidate_line(node.candidates[i], look, facts))
    if not node.candidates:
        lines.append(Text("  no candidate ended its step", "yellow"))
    lines += [Text("  " + line, "dim") for line in who_beat_whom(node.judgements, names)]
    if show_replies:
        for one in node.judgements:
            shown = f"A {names[one.first]}, B {names[one.second]}: {printable(one.text).strip()}"
            lines.append(Padding(Text(shown, "dim italic"), (0, 0, 0, 4), expand=False))
    return lines


def candidate_line(candidate: Candidate, style: str, facts: str) -> RenderableType:
    return Padding(
        Text(printable(candidate.text).strip(), style) + Text(f"  {facts}", "dim"), (0, 0, 0, 2), expand=False
    )


def who_beat_whom(judgements: Sequence[Judgement], names: dict[int, str]) -> list[str]:
    """A line per candidate that beat others, and one per pair that nobody won; a pair counts if its verdicts agree."""
    asked: dict[frozenset[int], list[int | None]] = {}
    for one in judgements:
        asked.setdefault(frozenset((one.first, one.second)), []).append(one.winner)
    beaten: dict[int, list[str]] = {}
    open_pairs = []
    for pair, winners in asked.items():
        if winners[0] is not None and len(set(winners)) == 1:
            [loser] = pair - {winners[0]}
            beaten.setdefault(winners[0], []).append(names[loser])
        else:
            why = "no verdict" if None in winners else "the orders disagree"
            open_pairs.append(f"{' and '.join(names[i] for i in sorted(pair))}: {why}")
    return [f"{names[i]} beats {', '.join(losers)}" for i, losers in sorted(beaten.items())] + open_pairs


@dataclass(frozen=True)
class SideBySide:
    """All attempts, in columns where the terminal is wide enough.

    With `tail` only the last lines that fit on the screen: a live view that is longer cannot be redrawn.
    """

    attempts: Sequence[Attempt]
    tail: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole: RenderableType = Group(*self.attempts)
        if len(self.attempts) > 1 and options.max_width >= NARROW * len(self.attempts):
            whole = Table.grid(padding=(0, 3), expand=True)
            for _ in self.attempts:
                whole.add_column(ratio=1)
            whole.add_row(*self.attempts)
        if not self.tail:
            yield whole
            return
        for line in console.render_lines(whole, options.update(height=None), pad=False)[-(console.height - 1) :]:
            yield from line
            yield Segment.line()
