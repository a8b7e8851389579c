# SPDX-License-Identifier: Apache-2.0
"""Marks over HTTP: who may write them, in which bounds, and the page to write them on."""

from __future__ import annotations

__all__: list[str] = []
