# SPDX-License-Identifier: Apache-2.0
"""Entropy sources: the contract, what a draw carries, and the fallback."""

from __future__ import annotations

from qr_sampler.entropy.draw import (
    DroppedBytes,
    EntropyDraw,
    JitClass,
    Origin,
    SourceLimits,
    SourceStatus,
)
from qr_sampler.entropy.fallback import FallbackEntropySource
from qr_sampler.entropy.guard import GuardedSource
from qr_sampler.entropy.source import CONTRACT_VERSION, EntropySource

__all__ = [
    "CONTRACT_VERSION",
    "DroppedBytes",
    "EntropyDraw",
    "EntropySource",
    "FallbackEntropySource",
    "GuardedSource",
    "JitClass",
    "Origin",
    "SourceLimits",
    "SourceStatus",
]
