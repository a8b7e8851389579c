# SPDX-License-Identifier: Apache-2.0
"""Front-end checks: no engine samples without the plugin unnoticed."""

from __future__ import annotations

__all__: list[str] = []
