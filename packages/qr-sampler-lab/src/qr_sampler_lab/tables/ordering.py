# SPDX-License-Identifier: Apache-2.0
"""Tokens in the order of their time: that of a ledger's lines is another.

A line is written when a token is known to be emitted, which may be steps after its draw, and rows
of one step in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from qr_sampler_lab.tables.columns import TokenChunk
from qr_sampler_lab.tables.errors import OrderError

__all__ = ["Stream", "in_order", "merged"]


def in_order(chunks: Iterable[TokenChunk], *, window: int, name: str) -> Iterator[TokenChunk]:
    """Yields tokens in the order of (received, offset), those that tie in the order given.

    Args:
        chunks: Chunks of one run.
        window: Number of tokens that are held back; no token may stand further than that behind
            one that was received later.
        name: Of the run, for the error.

    Raises:
        OrderError: When one stands further behind.
    """
    held: list[TokenChunk] = []
    size = 0
    last = _BEFORE_ALL
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size < 2 * window:
            continue
        ordered = _sorted(TokenChunk.concatenated(held))
        early, late = ordered[: size - window], ordered[size - window :]
        last = _following(last, early, window, name)
        held, size = [late], len(late)
        yield early
    if size:
        ordered = _sorted(TokenChunk.concatenated(held))
        _following(last, ordered, window, name)
        yield ordered


_BEFORE_ALL = (-1, -2)


def _sorted(chunk: TokenChunk) -> TokenChunk:
    return chunk[np.lexsort((chunk.offset, chunk.received_ns))]


def _following(
    last: tuple[int, int], ordered: TokenChunk, window: int, name: str
) -> tuple[int, int]:
    """Returns the place of the last token of *ordered*, if the first one is behind *last*."""
    if _place(ordered, 0) < last:
        raise OrderError(
            f"tokens of {name} stand more than {window:,} tokens away from their place in time; "
            f"give a larger window, such as {8 * window}, which takes more memory"
        )
    return _place(ordered, -1)


def _place(chunk: TokenChunk, index: int) -> tuple[int, int]:
    return int(chunk.received_ns[index]), int(chunk.offset[index])


@dataclass(slots=True, eq=False)
class Stream:
    """Tokens of one run, in order, that are not read before they are needed."""

    begins_ns: int
    """A time before which it has no token."""
    begin: Callable[[], Iterator[TokenChunk]]
    """Starts reading."""


def merged(streams: Iterable[Stream]) -> Iterator[TokenChunk]:
    """Yields the tokens of streams whose times are on one clock, in order.

    Streams are begun when their time has come and dropped at their end, so that memory grows with
    the number of runs that overlap in time, not with that of runs.
    """
    waiting = sorted(streams, key=lambda stream: stream.begins_ns, reverse=True)
    heads: list[_Head] = []
    while waiting or heads:
        if not heads or (waiting and waiting[-1].begins_ns <= _horizon(heads)):
            head = _Head(waiting.pop().begin())
            heads += [head] if head.chunk is not None else []
            continue
        horizon = _horizon(heads)
        parts = [part for head in heads if len(part := head.until(horizon))]
        heads = [head for head in heads if head.chunk is not None]
        yield parts[0] if len(parts) == 1 else _sorted(TokenChunk.concatenated(parts))


class _Head:
    """The next chunk of a stream."""

    def __init__(self, chunks: Iterator[TokenChunk]) -> None:
        self._chunks = chunks
        self.chunk: TokenChunk | None = next(chunks, None)

    @property
    def last_ns(self) -> int:
        """Time of its last token."""
        return int(self.chunk.received_ns[-1]) if self.chunk is not None else 0

    def until(self, horizon: int) -> TokenChunk:
        """Returns its tokens up to a time, and goes on behind them."""
        chunk = self.chunk
        if chunk is None:
            raise ValueError("the stream is over")
        count = int(np.searchsorted(chunk.received_ns, horizon, side="right"))
        self.chunk = chunk[count:] if count < len(chunk) else next(self._chunks, None)
        return chunk[:count]


def _horizon(heads: list[_Head]) -> int:
    """Returns the time up to which all tokens are at hand."""
    return min(head.last_ns for head in heads)
