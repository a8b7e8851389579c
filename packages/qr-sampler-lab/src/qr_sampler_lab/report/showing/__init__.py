# SPDX-License-Identifier: Apache-2.0
"""A report as text, as a page and as tables."""

from __future__ import annotations

__all__: list[str] = []
