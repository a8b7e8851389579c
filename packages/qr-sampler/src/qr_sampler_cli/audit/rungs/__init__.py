# SPDX-License-Identifier: Apache-2.0
"""What is judged on each rung, and what has to be remembered for it."""

from __future__ import annotations

__all__: list[str] = []
