# SPDX-License-Identifier: Apache-2.0
"""Sequences, what becomes of their tokens, and the session that decides and records them."""

from __future__ import annotations

__all__: list[str] = []
