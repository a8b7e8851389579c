# SPDX-License-Identifier: Apache-2.0
"""The audit of ledgers: what their records alone can prove, rung by rung."""

from __future__ import annotations

__all__: list[str] = []
