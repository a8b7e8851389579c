# SPDX-License-Identifier: Apache-2.0
"""Ledgers as columns: tokens in the order of their time, and the tables made of them."""

from __future__ import annotations

__all__: list[str] = []
