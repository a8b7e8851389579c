# SPDX-License-Identifier: Apache-2.0
"""The lines of a ledger as types, written from the specification and not from the writer."""

from __future__ import annotations

__all__: list[str] = []
