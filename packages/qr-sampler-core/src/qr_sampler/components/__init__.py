# SPDX-License-Identifier: Apache-2.0
"""Sources, amplifiers and temperature strategies: found, constructed and matched."""

from __future__ import annotations

__all__: list[str] = []
