# SPDX-License-Identifier: Apache-2.0
"""What the plugin reads of a vLLM engine: layout, interfaces, ranks and tensors."""

from __future__ import annotations

__all__: list[str] = []
