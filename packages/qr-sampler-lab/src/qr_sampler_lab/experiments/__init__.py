# SPDX-License-Identifier: Apache-2.0
"""Experiments that are sealed before they begin: protocol, seal, register, order and journal."""

from __future__ import annotations

__all__: list[str] = []
