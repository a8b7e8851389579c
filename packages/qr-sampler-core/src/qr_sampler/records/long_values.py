# SPDX-License-Identifier: Apache-2.0
"""Values that a request may make as long as it likes, and lines of bounded length all the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any, Final, TypeVar

__all__ = ["MOST_IDS", "json_digest", "shortened"]

MOST_IDS: Final = 4096
"""Number of token ids that are written down; of more there is only a digest."""

_LARGEST: Final = 2**63 - 1
"""Largest whole number of a ledger."""

ValueT = TypeVar("ValueT")


def shortened(value: ValueT, ids: Collection[int]) -> ValueT | dict[str, Any]:
    """Returns *value*, or of a long one ``count`` and ``sha256``.

    Args:
        value: What is asked for, JSON-ready.
        ids: The token ids in it. If there are more than :data:`MOST_IDS`, or one of them does not
            fit into 64 bits, *value* is too long.
    """
    if len(ids) <= MOST_IDS and all(-_LARGEST <= token_id <= _LARGEST for token_id in ids):
        return value
    return {"count": len(ids), "sha256": json_digest(value)}


def json_digest(value: object) -> str:
    """Returns the hexadecimal SHA-256 of *value* as JSON with sorted keys and no spaces."""
    # Whatever is no JSON has a text; escapes keep half of a surrogate pair within ASCII.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
