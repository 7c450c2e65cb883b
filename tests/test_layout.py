"""The plan of the house: which package may import which. Run as a script, it prints the picture.

    python -m tests.test_layout

Floors from the top. A room may import its own floor's rooms and those below it, never one above. The README's table
follows this order.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = [
    ["psr.cli", "callbacks"],
    ["psr.commands", "psr.modules"],
    ["psr.data", "psr.report"],
    ["psr.evaluation", "psr.sweeps"],
    ["psr.run"],
    ["psr.search"],
    ["psr.curation", "psr.engines", "psr.planning"],
    ["psr.policy", "psr.prompts"],
    ["psr.files"],
    [
        "psr.trees",
        "psr.processes",
        "psr.terminal",
        "psr.records",
        "psr.answers",
        "psr.bounds",
        "psr.errors",
        "psr.keys",
    ],
]
FLOOR = {room: len(FLOORS) - number for number, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module: str) -> str | None:
    """The package of a module of ours, or the loose module itself; None for psr's own `__init__` and for others."""
    parts = module.split(".")
    room = parts[0] if parts[0] == "callbacks" else ".".join(parts[:2])
    return room if parts[0] in ("psr", "callbacks") and room != "psr" else None


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, at its top or inside functions, but not for type annotations alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {id(node) for block in ast.walk(tree) if guards_types(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from psr import guard` names a module, `from psr.records import Problem` what is in one.
            yield from ([f"psr.{alias.name}" for alias in node.names] if node.module == "psr" else [node.module])


def guards_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def arrows() -> dict[tuple[str, str], list[str]]:
    """(room, room that it imports) -> the files that do."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted([*ROOT.glob("psr/**/*.py"), *ROOT.glob("callbacks/*.py")]):
        file = path.relative_to(ROOT)
        here = room_of(".".join(file.with_suffix("").parts))
        for module in imports(path):
            there = room_of(module)
            if here and there and here != there and there != "psr.__version__":
                found.setdefault((here, there), []).append(str(file))
    return found


def circles(found: dict[tuple[str, str], list[str]]) -> list[tuple[str, str]]:
    """Pairs of rooms that reach each other."""
    reach = {room: {there for here, there in found if here == room} for room in FLOOR}
    for _ in FLOOR:  # longest path
        reach = {room: ones | {far for one in ones for far in reach[one]} for room, ones in reach.items()}
    return sorted((a, b) for a in reach for b in reach[a] if a < b and a in reach[b])


def test_every_room_has_a_floor():
    loose = {f"psr.{path.stem}" for path in ROOT.glob("psr/*.py") if path.stem != "__init__"}
    packages = {f"psr.{path.parent.name}" for path in ROOT.glob("psr/*/__init__.py")}
    assert loose | packages | {"callbacks"} == set(FLOOR)


def test_no_room_imports_from_a_floor_above_its_own():
    above = {arrow: files for arrow, files in arrows().items() if FLOOR[arrow[1]] > FLOOR[arrow[0]]}
    assert not above


def test_no_two_rooms_need_each_other():
    assert circles(arrows()) == []


def test_what_everything_raises_from_imports_nothing_of_ours():
    assert not {there for here, there in arrows() if here == "psr.errors"}


if __name__ == "__main__":
    for rooms in FLOORS:
        print(f"{FLOOR[rooms[0]]:3}  {'  '.join(rooms)}")
    drawn = arrows()
    back = sum(FLOOR[there] > FLOOR[here] for here, there in drawn)
    print(
        f"{len(FLOOR)} rooms, {len(FLOORS)} floors, {len(drawn)} arrows, {back} back up, {len(circles(drawn))} circles"
    )
