# SPDX-License-Identifier: Apache-2.0
"""What a source can be told of the token that its bytes are going to decide."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["RowContext"]


class RowContext(NamedTuple):
    """Which token a row is going to decide."""

    run_id: str
    """Name of the run."""
    sequence: str
    """Name of the sequence."""
    position: int
    """Index of the token in its sequence."""
    previous: bytes
    """:func:`~qr_sampler.link_digest` of the latest token of the sequence that entropy had chosen
    in an earlier step; empty for none."""
    request_key: str = ""
    """Names the request, as the client has called it; no digest covers it."""
