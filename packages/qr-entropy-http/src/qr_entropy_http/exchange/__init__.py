# SPDX-License-Identifier: Apache-2.0
"""One request and its answer, bounded in time and size."""

from __future__ import annotations

from qr_entropy_http.exchange.deadline import Deadline, DeadlineLapsedError
from qr_entropy_http.exchange.exchange import Answer, ExchangeError, exchange

__all__ = ["Answer", "Deadline", "DeadlineLapsedError", "ExchangeError", "exchange"]
