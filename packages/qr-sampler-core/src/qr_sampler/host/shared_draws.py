# SPDX-License-Identifier: Apache-2.0
"""What becomes of rows whose shared draw has failed: each gets a draw of its own before it ends.

A draw for many rows is larger and slower than that for one, and one row may ask for what a source
refuses or a component cannot handle. That is no reason to end its neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from qr_sampler import EntropyUnavailableError, QRSamplerError

__all__ = ["LEAST_BUDGET_S", "serve_or_split", "serve_parts"]

LEAST_BUDGET_S: Final = 0.1
"""Time in seconds that draws which fail may always take in a step, so that refusals, which come at
once, leave every row its chance."""

T = TypeVar("T")


def serve_or_split(
    whole: T,
    split: Callable[[T], Sequence[T]],
    attempt: Callable[[T], QRSamplerError | None],
    give_up: Callable[[T, QRSamplerError], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Serves *whole* at once or, where that fails, its parts one by one.

    Args:
        whole: What is to be served.
        split: Returns what can be served on its own, *whole* alone if that is all.
        attempt: Serves something; returns why that has failed, if it has.
        give_up: Called with each part that is not served, and the reason.
        clock: Seconds from any origin.
    """
    error, took_s = _timed(attempt, whole, clock)
    if error is not None:
        serve_parts(split(whole), error, took_s, attempt, give_up, clock)


def serve_parts(
    parts: Sequence[T],
    error: QRSamplerError,
    took_s: float,
    attempt: Callable[[T], QRSamplerError | None],
    give_up: Callable[[T, QRSamplerError], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Serves one by one what could not be served together.

    All rows of the step wait for this. So the parts that the source fails may together take as long
    as the whole has taken; after that it is down, and what is left is given up untried. A dead
    source costs two deadlines, not one for each row.

    Args:
        parts: What can be served on its own; a single one has been tried already.
        error: Why all together have failed.
        took_s: How many seconds that took.
        attempt: As for :func:`serve_or_split`, like the rest.
        give_up: Likewise.
        clock: Likewise.
    """
    if len(parts) == 1:
        give_up(parts[0], error)
        return
    left_s = max(took_s, LEAST_BUDGET_S)
    for part in parts:
        if left_s > 0.0:
            failure, took_s = _timed(attempt, part, clock)
            if failure is None:
                continue
            error = failure
            # A component that fails says nothing about the source.
            left_s -= took_s if isinstance(failure, EntropyUnavailableError) else 0.0
        give_up(part, error)


def _timed(
    attempt: Callable[[T], QRSamplerError | None], part: T, clock: Callable[[], float]
) -> tuple[QRSamplerError | None, float]:
    """Returns why serving *part* has failed, if it has, and how many seconds that took."""
    began_s = clock()
    failure = attempt(part)
    return failure, clock() - began_s
