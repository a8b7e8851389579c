# SPDX-License-Identifier: Apache-2.0
"""Why ledgers cannot be made tables."""

from __future__ import annotations

from qr_sampler.errors import QRSamplerError

__all__ = ["OrderError", "TablesError"]


class TablesError(QRSamplerError, ValueError):
    """Files cannot be read as tables, or tables cannot be written."""


class OrderError(TablesError):
    """Tokens stand further from their place in time than the window reaches."""
