"""The colours of the report, in one place for page and images.

The palette tells seven groups apart with every common kind of colour blindness and has a contrast of at least 3 to 1
with its background (tests/report/test_look.py computes both); dashes and names tell apart what colour does not.
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
    palette=("#0b62b0", "#c4500a", "#04806a", "#9a3b8c", "#8a6a00", "#4d5560", "#b0203c"),
)
DARK = Theme(
    page="#131417",
    raised="#1a1c20",
    text="#e9e8e5",
    muted="#a0a3a9",
    line="#2f3238",
    palette=("#5aa9f2", "#f28a4b", "#35c4a3", "#dd8fd0", "#d9b443", "#aab2bd", "#ff7d90"),
)
FONT = 'Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


def css_variables(theme: Theme) -> str:
    """The theme as the declarations of a CSS rule."""
    named = {name: getattr(theme, name) for name in ("page", "raised", "text", "muted", "line")}
    slots = {f"slot-{i}": colour for i, colour in enumerate(theme.palette)}
    return " ".join(f"--{name}: {colour};" for name, colour in {**named, **slots}.items())
