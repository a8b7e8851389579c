# SPDX-License-Identifier: Apache-2.0
"""What is done in the front end, so that no engine samples without the plugin unnoticed."""

from __future__ import annotations

__all__: list[str] = []
