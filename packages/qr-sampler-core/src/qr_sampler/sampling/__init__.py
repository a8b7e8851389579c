# SPDX-License-Identifier: Apache-2.0
"""One sampling step, from logits to tokens."""

from __future__ import annotations

__all__: list[str] = []
