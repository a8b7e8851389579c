# SPDX-License-Identifier: Apache-2.0
"""Random numbers from services that answer over HTTP, as a source for qr-sampler."""

from __future__ import annotations

from importlib.metadata import version as _version

__all__ = ["__version__"]

__version__ = _version("qr-entropy-http")
