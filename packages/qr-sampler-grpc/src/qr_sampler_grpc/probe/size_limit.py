# SPDX-License-Identifier: Apache-2.0
"""Finds the largest request that a server accepts, for a limited number of bytes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from qr_sampler.errors import EntropyUnavailableError
from qr_sampler_grpc.link.quota_pacer import QuotaPacer, QuotaUsedUpError
from qr_sampler_grpc.probe.draws import paced_draw
from qr_sampler_grpc.probe.target import ProbeTarget

__all__ = ["MOST_SEARCHED", "SizeLimit", "find_size_limit"]

_LARGEST: Final = 2**30
"""No source asks for more at once."""
MOST_SEARCHED: Final = 80
"""Requests of a search: thirty doublings, as many halvings, and the numbers in refusals."""
_NUMBER: Final = re.compile(r"\d{1,3}(?:[,_]\d{3})+|\d+", re.ASCII)

Ask = Callable[[int], str]
"""Returns why a request for so many bytes is refused, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeLimit:
    """What is known of the largest request."""

    accepted_bytes: int
    """Largest request that was answered."""
    refused_bytes: int | None = None
    """Smallest one that was refused; ``None`` when none was."""
    reason: str = ""
    """Why that one was refused."""
    spent_bytes: int = 0
    """Bytes that the search has cost."""


def find_size_limit(
    target: ProbeTarget, mode: str, *, known_bytes: int, budget_bytes: int, pacer: QuotaPacer
) -> SizeLimit:
    """Returns the largest request that *target* accepts, as far as *budget_bytes* reach.

    Sizes double until one is refused. The limit is then looked for at the numbers that the refusal
    mentions, and by halving. A refusal costs nothing.

    Args:
        target: The server.
        mode: The mode to ask in.
        known_bytes: A size that was answered already.
        budget_bytes: Most bytes to draw in all.
        pacer: Keeps the quotas and waits for them; the search ends where they are used up.
    """

    def ask(n: int) -> str:
        with contextlib.closing(target.source(mode, n)) as source:
            try:
                paced_draw(source, n, b"", pacer)
            except EntropyUnavailableError as error:
                return error.reason
        return ""

    return _search(ask, known_bytes, budget_bytes)


def _search(ask: Ask, accepted: int, budget: int) -> SizeLimit:
    spent, refused, reason = 0, None, ""
    for _ in range(MOST_SEARCHED):
        if refused == accepted + 1:
            break
        tried = _next(accepted, refused, reason)
        # A size that may be answered has to be paid for.
        if tried > min(_LARGEST, budget - spent):
            break
        try:
            refusal = ask(tried)
        except QuotaUsedUpError:
            break
        if refusal:
            refused, reason = tried, refusal
        else:
            accepted = tried
            spent += tried
    return SizeLimit(
        accepted_bytes=accepted, refused_bytes=refused, reason=reason, spent_bytes=spent
    )


def _next(accepted: int, refused: int | None, reason: str) -> int:
    if refused is None:
        return 2 * accepted
    for number in _NUMBER.findall(reason):
        size = int(re.sub("[,_]", "", number))
        for hinted in (size, size + 1):
            if accepted < hinted < refused:
                return hinted
    return (accepted + refused) // 2
