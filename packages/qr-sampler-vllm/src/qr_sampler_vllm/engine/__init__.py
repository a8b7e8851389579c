# SPDX-License-Identifier: Apache-2.0
"""What is read of vLLM's engine: its layout, its interfaces, its ranks and its tensors."""

from __future__ import annotations

__all__: list[str] = []
