# SPDX-License-Identifier: Apache-2.0
"""A study as one directory that a stranger checks without a network."""

from __future__ import annotations

__all__: list[str] = []
