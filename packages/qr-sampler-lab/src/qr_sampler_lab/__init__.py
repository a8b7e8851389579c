# SPDX-License-Identifier: Apache-2.0
"""The laboratory: statistics, sealed experiments and outside witnesses for records.

It works on ledgers that any host has written, through the audit of the front door.
"""

from __future__ import annotations

from importlib.metadata import version as _version

__all__ = ["__version__"]

__version__ = _version("qr-sampler-lab")
