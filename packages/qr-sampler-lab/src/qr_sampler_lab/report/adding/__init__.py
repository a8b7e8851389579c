# SPDX-License-Identifier: Apache-2.0
"""What is added up of the tokens of an arm."""

from __future__ import annotations

__all__: list[str] = []
