# SPDX-License-Identifier: Apache-2.0
"""A ledger while it is being written, on the terminal."""

from __future__ import annotations

__all__: list[str] = []
