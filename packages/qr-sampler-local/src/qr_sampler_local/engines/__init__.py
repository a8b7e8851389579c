# SPDX-License-Identifier: Apache-2.0
"""Engines behind one protocol: prompts in, tokens and their records out, whatever computes them.

An engine's adapter is imported when the engine is loaded, and not before.
"""

from __future__ import annotations

from qr_sampler_local.engines.known import (
    KNOWN_ENGINES,
    EngineMissingError,
    KnownEngine,
    installed_engines,
    known_engine,
    load_engine,
)
from qr_sampler_local.engines.preference import preferred_engines
from qr_sampler_local.engines.protocol import (
    EmittedToken,
    FinishReason,
    Generated,
    LocalEngine,
    TokenListener,
)
from qr_sampler_local.engines.text import continuation

__all__ = [
    "KNOWN_ENGINES",
    "EmittedToken",
    "EngineMissingError",
    "FinishReason",
    "Generated",
    "KnownEngine",
    "LocalEngine",
    "TokenListener",
    "continuation",
    "installed_engines",
    "known_engine",
    "load_engine",
    "preferred_engines",
]
