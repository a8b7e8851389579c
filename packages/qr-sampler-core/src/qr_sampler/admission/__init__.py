# SPDX-License-Identifier: Apache-2.0
"""Admission of requests. What passes here cannot fail in a step."""

from __future__ import annotations

__all__: list[str] = []
