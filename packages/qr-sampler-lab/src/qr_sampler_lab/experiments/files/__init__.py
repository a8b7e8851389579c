# SPDX-License-Identifier: Apache-2.0
"""Chained files of a laboratory: the register of all studies, and the journal of each."""

from __future__ import annotations

__all__: list[str] = []
