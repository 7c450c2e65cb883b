"""The palette: enough contrast to be seen, and told apart with the common kinds of colour blindness.

Simulation: Machado, Oliveira and Fernandes 2009, severity 1; differences in CIELAB (a just noticeable one is 2.3).
"""

from itertools import combinations

import numpy as np
import pytest

from psr.report.look import DARK, LIGHT, Theme

VISION = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.95047, 1.0, 1.08883])


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio."""
    dark, light = sorted(float((TO_XYZ @ linear(colour))[1]) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    t = TO_XYZ @ rgb / WHITE
    x, y, z = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast(theme: Theme):
    for background in (theme.page, theme.raised):
        assert contrast(theme.text, background) > 7
        assert contrast(theme.muted, background) > 4.5
        assert all(contrast(colour, background) > 3 for colour in theme.palette)
    assert contrast(theme.page, theme.palette[0]) > 4.5, "the number in a chosen candidate's circle"


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_no_two_colours_look_alike(theme: Theme, vision: str):
    seen = [lab(np.clip(np.array(VISION[vision]) @ linear(colour), 0, 1)) for colour in theme.palette]
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)) > 15
