# SPDX-License-Identifier: Apache-2.0
"""Ties of a ledger to the world outside, verified without a network."""

from __future__ import annotations

__all__: list[str] = []
