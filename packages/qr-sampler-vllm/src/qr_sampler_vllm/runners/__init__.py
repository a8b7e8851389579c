# SPDX-License-Identifier: Apache-2.0
"""What the plugin does in a process of an engine, for each of vLLM's two model runners."""

from __future__ import annotations

__all__: list[str] = []
