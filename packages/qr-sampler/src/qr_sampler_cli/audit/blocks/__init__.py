# SPDX-License-Identifier: Apache-2.0
"""Rung 4, bytes: what draws have brought, if it was kept, and what amplifiers make of it."""

from __future__ import annotations

__all__: list[str] = []
