# SPDX-License-Identifier: Apache-2.0
"""How ledgers that are being watched look on a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from qr_sampler_cli.terminal.consoles import printable
from qr_sampler_lab.analysis import ville_boundary
from qr_sampler_lab.report.showing.words import milliseconds
from qr_sampler_lab.watch.following import Follower
from qr_sampler_lab.watch.state import ShownToken, WatchState
from qr_sampler_lab.watch.tokens import Decoder

__all__ = ["rendered", "shade"]

LOW: Final = (0, 92, 160)
"""Colour behind a token of a u near 0."""
HIGH: Final = (190, 80, 0)
"""Colour behind one of a u near 1; around 1/2 there is none."""

_SHOWN_TOKENS: Final = 120
_SHOWN_CHARACTERS: Final = 40
_SHOWN_SEQUENCES: Final = 4


def rendered(follower: Follower, state: WatchState, decoder: Decoder) -> RenderableType:
    """Returns the present state; of sealed ledgers only counts.

    Args:
        follower: The files.
        state: What is known.
        decoder: Makes text of token ids.
    """
    lines: list[RenderableType] = [*_counts(follower, state)]
    if state.is_sealed:
        lines.append(
            Text("sealed: results are not shown before the study is unblinded", style="yellow")
        )
    else:
        lines += [_evidence(state), _draws(state), *_texts(state, decoder)]
    lines += [Text(f"! {_short(told)}", style="red") for told in _health(follower, state)]
    return Group(*lines)


def _counts(follower: Follower, state: WatchState) -> Iterator[Text]:
    models = ", ".join(_short(model) for model in dict.fromkeys(state.models.values()))
    open_files = len(state.open_files)
    standing = f"{open_files} of {len(follower.files)} files open" if open_files else "ended"
    yield Text(f"{_short(str(follower.path))}  {models}  {standing}", style="bold")
    shown = ("tokens", "sequences", "draws", "discards", "forced", "undecided", "redacted", "lost")
    told = [
        f"{name} {state.counts[name]:,}"
        for name in shown
        if state.counts[name] or name in shown[:3]
    ]
    told.append(f"fallback {_share(state.counts['fallback'], state.counts['tokens'])}")
    yield Text("  ".join(told))


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.2%})" if whole else "0"


def _evidence(state: WatchState) -> Text:
    if state.has_baseline:
        return Text("u refers to a baseline: compare arms, as `qr-sampler analyze` does")
    result = state.evidence.result()
    if not result.n:
        return Text("no token yet")
    limit = float(ville_boundary(result.n, tau=result.tau, alpha=result.alpha)) / math.sqrt(
        result.n
    )
    text = Text(f"z {state.z:+.2f}  limit of looking all the time ±{limit:.2f}")
    if result.crossed_at is not None:
        text.append(f"  left after {result.crossed_at:,} tokens", style="bold red")
    text.append(f"  e-value 10^{result.log_e / math.log(10.0):+.2f}")
    return text


def _draws(state: WatchState) -> Text:
    sources = ", ".join(f"{_short(name)} {count:,}" for name, count in state.sources.most_common(4))
    median, most = milliseconds(state.latency_ms(0.5)), milliseconds(state.latency_ms(0.99))
    return Text(f"draws of {sources or 'nothing'}  latency {median}, 99 % within {most}")


def _texts(state: WatchState, decoder: Decoder) -> Iterator[Text]:
    for sequence in islice(reversed(state.texts), _SHOWN_SEQUENCES):
        yield Text(f"— {_short(state.keys.get(sequence, sequence))}", style="dim")
        text = Text()
        for token in list(state.texts[sequence])[-_SHOWN_TOKENS:]:
            shown = _one_line(decoder(token.token_id))
            text.append(shown[:_SHOWN_CHARACTERS], style=_style(token))
        yield text


def _style(token: ShownToken) -> str:
    if token.u < 0.0:
        return "reverse"
    colour = "" if shade(token.u) is None else "on rgb({},{},{})".format(*shade(token.u) or ())
    return f"underline {colour}" if token.fallback else colour


def shade(u: float) -> tuple[int, int, int] | None:
    """Returns the colour behind a token: the further u is from 1/2, the stronger.

    Args:
        u: In (0, 1).
    """
    strength = min(1.0, abs(2.0 * u - 1.0))
    if strength < 0.1:
        return None
    red, green, blue = (round(strength * part) for part in (LOW if u < 0.5 else HIGH))
    return red, green, blue


def _health(follower: Follower, state: WatchState) -> Iterator[str]:
    if not state.is_sealed:
        yield from state.health
    for file in follower.files.values():
        if file.fault:
            yield f"{file.path.name}: {file.fault}"
        if file.unreadable:
            yield f"{file.path.name}: {file.unreadable:,} lines are no records"


def _one_line(text: str) -> str:
    return printable(text).replace("\n", "⏎").replace("\t", " ")


def _short(text: str) -> str:
    told = _one_line(text)
    return told if len(told) <= 100 else told[:99] + "…"
