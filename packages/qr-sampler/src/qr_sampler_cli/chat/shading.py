# SPDX-License-Identifier: Apache-2.0
"""How a token looks: its background says u."""

from __future__ import annotations

from enum import Enum
from typing import Final

from rich.color import Color
from rich.style import Style
from rich.text import Text

from qr_sampler_cli.terminal.consoles import printable
from qr_sampler_local.engines import EmittedToken

__all__ = ["Shade", "background", "legend", "shaded"]


class Shade(str, Enum):
    """What the background of a token says."""

    NONE = "none"
    """Nothing."""
    U = "u"
    """The number that selected it."""


ANCHORS: Final = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""Matplotlib's colour map viridis at 0, 0.25, 0.5, 0.75 and 1: its lightness rises evenly."""

BLACK: Final = Color.from_rgb(0, 0, 0)
WHITE: Final = Color.from_rgb(255, 255, 255)

LIGHT: Final = 0.179
"""Relative luminance above which black text has more contrast than white: the solution of
(L + 0.05)^2 = 0.05 * 1.05, from the definition of contrast in WCAG 2.1."""

LEGEND: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


def shaded(text: str, token: EmittedToken, shade: Shade) -> Text:
    """Returns the text of a token as it is shown, control characters written as escapes.

    A token that came from the fallback is underlined; one that no entropy has chosen has no
    background.

    Args:
        text: What the token adds to the text.
        token: The token.
        shade: What its background says.
    """
    colours = None
    if shade is Shade.U and token.u is not None:
        colours = _colours(token.u)
    return Text(printable(text), Style(underline=token.fallback or None) + colours)


def legend() -> Text:
    """Returns the scale of backgrounds."""
    parts = [Text(f" {u:g} ", _colours(u)) for u in LEGEND]
    return Text.assemble("u ", *parts, "  underlined: from the fallback")


def background(u: float) -> tuple[int, int, int]:
    """Returns red, green and blue, 0 to 255, for u in [0, 1]: dark for 0, light for 1."""
    place = u * (len(ANCHORS) - 1)
    index = min(int(place), len(ANCHORS) - 2)
    share = place - index
    lower, upper = ANCHORS[index], ANCHORS[index + 1]
    red, green, blue = (
        round(low + share * (high - low)) for low, high in zip(lower, upper, strict=True)
    )
    return red, green, blue


def _colours(u: float) -> Style:
    channels = background(u)
    text = BLACK if _luminance(channels) > LIGHT else WHITE
    return Style.from_color(text, Color.from_rgb(*channels))


def _luminance(channels: tuple[int, int, int]) -> float:
    """Returns the relative luminance of a colour of sRGB, as WCAG 2.1 defines it."""
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in channels)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
