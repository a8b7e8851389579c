# SPDX-License-Identifier: Apache-2.0
"""All lines of version 2 together, and their JSON Schema."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from qr_sampler_cli.audit.schema.run_lines import (
    Anchor,
    Clock,
    Close,
    Gap,
    Genesis,
    Model,
    Redacted,
)
from qr_sampler_cli.audit.schema.token_lines import (
    Bypass,
    Discard,
    Draw,
    Emission,
    End,
    Forced,
    Sequence,
    Token,
    Undecided,
)

__all__ = ["KINDS", "SCHEMA_VERSION", "KnownLine", "json_schema"]

SCHEMA_VERSION: Final = 2
"""Version of the ledger whose lines these are."""

KnownLine = (
    Genesis
    | Model
    | Sequence
    | Draw
    | Token
    | Discard
    | Forced
    | Undecided
    | Emission
    | Bypass
    | End
    | Redacted
    | Gap
    | Clock
    | Anchor
    | Close
)
"""A line of a kind that version 2 defines."""

KINDS: Final[frozenset[str]] = frozenset(
    str(line.__struct_config__.tag) for line in KnownLine.__args__
)
"""Names of these kinds."""


def json_schema() -> str:
    """Returns the JSON Schema of one line, as a text that ends with a newline."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A line of a qr-sampler ledger, version {SCHEMA_VERSION}",
        "description": (
            "One line of a known kind; readers keep lines of other kinds. See docs/ledger.md for "
            "what ties lines together."
        ),
        **msgspec.json.schema(KnownLine),
    }
    return json.dumps(schema, indent=2) + "\n"
