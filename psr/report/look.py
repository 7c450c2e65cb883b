"""The colours of the report, in one place for page and images.

The palette distinguishes six groups with every common kind of colour blindness and has a contrast of at least 3 to 1
with its background (tests/report/test_look.py computes both); dashes and names distinguish what colours do not.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """Hex colours: the page, its raised parts, text, muted text, hairlines, and the slots of the palette."""

    page: str
    raised: str
    text: str
    muted: str
    line: str
    palette: tuple[str, ...]


LIGHT = Theme(
    page="#fbfbfa",
    raised="#ffffff",
    text="#1b1c1e",
    muted="#5d6066",
    line="#e3e3e0",
    palette=("#1d4ed8", "#d9650a", "#0d9f79", "#895fa9", "#425f27", "#3a2a36"),
)
DARK = Theme(
    page="#131417",
    raised="#1a1c20",
    text="#e9e8e5",
    muted="#a0a3a9",
    line="#2f3238",
    palette=("#6f8ffb", "#e0693a", "#2fd6a0", "#b884c2", "#ffbe5c", "#b4d4d8"),
)
FONT = 'Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


def css_variables(theme: Theme) -> str:
    """The theme as the declarations of a CSS rule."""
    named = {name: getattr(theme, name) for name in ("page", "raised", "text", "muted", "line")}
    slots = {f"slot-{i}": colour for i, colour in enumerate(theme.palette)}
    return " ".join(f"--{name}: {colour};" for name, colour in {**named, **slots}.items())
