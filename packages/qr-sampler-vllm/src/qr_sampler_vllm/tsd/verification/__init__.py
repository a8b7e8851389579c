# SPDX-License-Identifier: Apache-2.0
"""Modes of verification: exact match, or accept and correct with the proposal distribution.

Both implement the contract of :mod:`qr_sampler_vllm.tsd.verification.contract`.
"""

from __future__ import annotations

__all__: list[str] = []
