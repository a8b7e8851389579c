# SPDX-License-Identifier: Apache-2.0
"""What may be asked for, counted so that a restart does not forget it."""

from __future__ import annotations

from qr_entropy_http.quota.quota import Quota, QuotaError, Spending
from qr_entropy_http.quota.store import QuotaStoreError

__all__ = ["Quota", "QuotaError", "QuotaStoreError", "Spending"]
