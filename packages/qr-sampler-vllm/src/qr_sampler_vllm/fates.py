# SPDX-License-Identifier: Apache-2.0
"""What becomes of rows whose shared draw has failed: each gets a draw of its own before it ends.

A draw for many rows is larger and slower than that for one, and one row may ask for what a source
refuses or a component cannot handle. That is no reason to end its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from qr_sampler import EntropyUnavailableError, QRSamplerError

__all__ = ["ENOUGH_FAILURES", "serve_apart"]

ENOUGH_FAILURES: Final = 2
"""Draws in a row that have to fail for a source to be taken for down: it may take each one its
whole time to fail, while all rows of the step wait."""

T = TypeVar("T")


def serve_apart(
    parts: Sequence[T],
    error: QRSamplerError,
    attempt: Callable[[T], QRSamplerError | None],
    give_up: Callable[[T, QRSamplerError], None],
) -> None:
    """Serves *parts* one by one, after serving them together has failed.

    Args:
        parts: What can be served on its own. A single one has had its chance.
        error: Why serving them together has failed.
        attempt: Serves one part; returns why that has failed, if it has.
        give_up: Is told of each part that is not served, and why.
    """
    if len(parts) == 1:
        give_up(parts[0], error)
        return
    failures = 0
    for part in parts:
        if failures < ENOUGH_FAILURES:
            failure = attempt(part)
            if failure is None:
                failures = 0
                continue
            error = failure
            # A component that fails says nothing about the source.
            failures += isinstance(failure, EntropyUnavailableError)
        give_up(part, error)
