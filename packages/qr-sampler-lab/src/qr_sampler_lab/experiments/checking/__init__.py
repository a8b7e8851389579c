# SPDX-License-Identifier: Apache-2.0
"""What a protocol is worth before it is sealed: its power, what speaks against it, and its text."""

from __future__ import annotations

__all__: list[str] = []
