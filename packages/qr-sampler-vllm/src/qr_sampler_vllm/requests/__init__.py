# SPDX-License-Identifier: Apache-2.0
"""What the plugin reads of vLLM's requests: options, penalties and stop conditions."""

from __future__ import annotations

__all__: list[str] = []
