# SPDX-License-Identifier: Apache-2.0
"""What engines say of themselves, and how it reaches whoever watches them."""

from __future__ import annotations

__all__: list[str] = []
