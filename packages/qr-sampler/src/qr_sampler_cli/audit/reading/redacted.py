# SPDX-License-Identifier: Apache-2.0
"""What is left of lines whose text was left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from qr_sampler_cli.audit.schema.lines import KnownLine
from qr_sampler_cli.audit.schema.run_lines import Redacted

__all__ = ["REDACTED_ID", "opened"]

REDACTED_ID: Final = -1
"""Stands for a token id that was left out."""

_ID: Final = "token_id"

_LEFT_OUT: Final[Mapping[str, Mapping[str, Any]]] = {
    "sequence": {},
    "draw": {"commitment": "", "signature": ""},
    "discard": {},
    "end": {"link": ""},
    **{kind: {_ID: 0} for kind in ("token", "forced", "undecided", "emission")},
}
"""By kind, what stands in for fields that have no default."""


def opened(line: Redacted) -> Any | None:
    """Returns a record of the original's kind, ``None`` if that is unknown.

    Token ids are :data:`REDACTED_ID`, digests of tokens and signatures empty.

    Raises:
        msgspec.ValidationError: When what is left does not fit the kind.
    """
    left_out = _LEFT_OUT.get(line.of)
    if left_out is None:
        return None
    values = {**line.fields, **left_out, "kind": line.of, "n": line.n, "prev": line.prev}
    stop = values.get("stop")
    if isinstance(stop, dict):
        values["stop"] = {**stop, "token_ids": []}
    record: Any = msgspec.convert(values, KnownLine)
    if _ID in left_out:
        record.token_id = REDACTED_ID
    return record
