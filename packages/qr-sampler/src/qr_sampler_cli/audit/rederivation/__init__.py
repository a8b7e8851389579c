# SPDX-License-Identifier: Apache-2.0
"""Rung 6: the model gives the logits again, and with the recorded u the recorded tokens."""

from __future__ import annotations

__all__: list[str] = []
