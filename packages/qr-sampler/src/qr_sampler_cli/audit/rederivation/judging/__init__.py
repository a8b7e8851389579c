# SPDX-License-Identifier: Apache-2.0
"""The mathematics of the judgement: intervals, errors that explain, tolerances. NumPy alone."""

from __future__ import annotations

__all__: list[str] = []
