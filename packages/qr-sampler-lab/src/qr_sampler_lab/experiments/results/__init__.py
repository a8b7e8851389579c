# SPDX-License-Identifier: Apache-2.0
"""From the chained lines of a study to its figures, by the rules that its seal fixes."""

from __future__ import annotations

__all__: list[str] = []
