# SPDX-License-Identifier: Apache-2.0
"""How drafts are verified: by the match of one choice, or with the true law of their proposals.

Both modes fulfil the contract of :mod:`qr_sampler_vllm.tsd.verification.contract`.
"""

from __future__ import annotations

__all__: list[str] = []
