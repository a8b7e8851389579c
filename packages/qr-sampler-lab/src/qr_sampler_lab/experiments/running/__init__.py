# SPDX-License-Identifier: Apache-2.0
"""Carrying a sealed study out: engines, the list of sessions, and when it stops."""

from __future__ import annotations

__all__: list[str] = []
