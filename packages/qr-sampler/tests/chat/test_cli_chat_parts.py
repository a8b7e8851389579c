# SPDX-License-Identifier: Apache-2.0
"""The parts of a conversation by themselves: text that arrives in pieces, and colours."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from rich.text import Text

from qr_sampler_cli.chat.shading import ANCHORS, Shade, background, legend, shaded
from qr_sampler_cli.chat.text_stream import TextStream
from qr_sampler_local.engines import EmittedToken


def decode_bytes(tokens: Sequence[int]) -> str:
    return bytes(tokens).decode("utf-8", "replace")


def decode_words(tokens: Sequence[int]) -> str:
    """As many tokenizers do: a text by itself has no space before its first word."""
    return " ".join(("so", "it", "bends", "!")[token] for token in tokens).replace(" !", "!")


def pieces(stream: TextStream, tokens: Sequence[int]) -> list[str]:
    return [*(stream.add(token) for token in tokens), stream.rest()]


@pytest.mark.parametrize(
    "text", ["plain", "na\u00efve", "\u2600\ufe0f light", "\U0001f300\U0001f300", "a\ufffdb"]
)
def test_pieces_make_the_text_and_no_character_is_torn(text: str) -> None:
    found = pieces(TextStream(decode_bytes, []), list(text.encode()))
    assert "".join(found) == text
    assert set("".join(found)) == set(text)


def test_a_space_before_a_word_stays_with_it() -> None:
    assert pieces(TextStream(decode_words, [0]), [1, 2, 3]) == [" it", " bends", "!", ""]


def test_what_is_no_character_is_shown_in_the_end() -> None:
    stream = TextStream(decode_bytes, [])
    assert pieces(stream, b"a\xe2\x98") == ["a", "", "", "\ufffd"]
    assert stream.rest() == ""


def test_bytes_that_never_make_a_character_wait_for_no_more_than_four() -> None:
    found = pieces(TextStream(decode_bytes, []), [0xFF] * 9)
    assert "".join(found) == "\ufffd" * 9
    assert found[3] == "\ufffd" * 4


def test_the_cost_of_a_token_does_not_grow_with_the_reply() -> None:
    longest = 0

    def decode(tokens: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(tokens))
        return decode_bytes(tokens)

    pieces(TextStream(decode, list(b"p" * 500)), list(b"x" * 500))
    assert longest < 16


def test_backgrounds_are_those_of_viridis() -> None:
    """Against Matplotlib's own table, where it is installed."""
    colormaps = pytest.importorskip("matplotlib", reason="draws plots only").colormaps
    viridis = colormaps["viridis"].resampled(256)
    for index, anchor in enumerate(ANCHORS):
        theirs = [round(255 * channel) for channel in viridis(index / 4)[:3]]
        assert anchor == pytest.approx(theirs, abs=1)


def test_a_larger_u_is_lighter() -> None:
    """By the relative luminance of WCAG 2.1, in steps that eight bits a channel can show."""
    found = [luminance(background(n / 100)) for n in range(101)]
    assert found == sorted(found)
    assert found[0] < 0.02
    assert found[-1] > 0.7


def luminance(channels: Sequence[float]) -> float:
    """Returns the relative luminance of a colour of sRGB."""
    parts = [channel / 255 for channel in channels]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(text: Text) -> float:
    """Returns the contrast of the first span by WCAG 2.1, from its definition."""

    style = text.style
    assert not isinstance(style, str)
    assert style.color is not None
    assert style.bgcolor is not None
    both = [luminance(colour.get_truecolor()) for colour in (style.color, style.bgcolor)]
    return (max(both) + 0.05) / (min(both) + 0.05)


def test_text_is_readable_on_every_background() -> None:
    """4.5 is what WCAG 2.1 asks of text, level AA."""
    tokens = [EmittedToken(0, 0, 1, u=n / 1000) for n in range(1001)]
    assert min(contrast(shaded("x", token, Shade.U)) for token in tokens) > 4.5


@pytest.mark.parametrize("shade", list(Shade))
def test_the_fallback_is_underlined_and_no_entropy_is_unshaded(shade: Shade) -> None:
    fallback = shaded("x", EmittedToken(0, 0, 1, u=0.5, fallback=True), shade).style
    forced = shaded("x", EmittedToken(0, 0, 1), shade).style
    assert not isinstance(fallback, str)
    assert not isinstance(forced, str)
    assert fallback.underline
    assert not forced.underline
    assert forced.bgcolor is None
    assert (fallback.bgcolor is None) == (shade is Shade.NONE)


def test_the_legend_names_the_ends() -> None:
    assert legend().plain.startswith("u  0 ")
    assert " 1 " in legend().plain
