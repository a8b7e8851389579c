# SPDX-License-Identifier: Apache-2.0
"""What is read of vLLM's requests: their options, their penalties, and what ends them."""

from __future__ import annotations

__all__: list[str] = []
