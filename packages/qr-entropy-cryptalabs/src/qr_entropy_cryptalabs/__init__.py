# SPDX-License-Identifier: Apache-2.0
"""The quantum random number generators of Crypta Labs, as a source for qr-sampler."""

from __future__ import annotations

from importlib.metadata import version as _version

__all__ = ["__version__"]

__version__ = _version("qr-entropy-cryptalabs")
