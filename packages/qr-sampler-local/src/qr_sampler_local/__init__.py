# SPDX-License-Identifier: Apache-2.0
"""Physical randomness for language models that run in the user's own process."""

from __future__ import annotations

from importlib.metadata import version as _version

__all__ = ["__version__"]

__version__ = _version("qr-sampler-local")
