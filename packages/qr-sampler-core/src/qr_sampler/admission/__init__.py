# SPDX-License-Identifier: Apache-2.0
"""What a request may ask for. What passes here cannot fail in a step."""

from __future__ import annotations

__all__: list[str] = []
