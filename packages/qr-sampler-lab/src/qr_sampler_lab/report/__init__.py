# SPDX-License-Identifier: Apache-2.0
"""The report on tokens: one page, the primary comparison first, with its figures as tables too."""

from __future__ import annotations

__all__: list[str] = []
