# SPDX-License-Identifier: Apache-2.0
"""What all records have in common."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, ClassVar

__all__ = ["SCHEMA_VERSION", "Record"]

SCHEMA_VERSION = 2
"""Version of the ledger's layout; raised when a field or a line changes its meaning."""


class Record:
    """A line of the ledger. ``kind`` tells which sort."""

    __slots__ = ()
    kind: ClassVar[str]

    def as_dict(self) -> dict[str, Any]:
        """Returns the record as JSON-ready values, ``kind`` first."""
        return {"kind": self.kind, **{name: getattr(self, name) for name in self.columns()}}

    @classmethod
    @cache
    def columns(cls) -> tuple[str, ...]:
        """Returns the names of the fields in the order in which a line has them."""
        return tuple(field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]
