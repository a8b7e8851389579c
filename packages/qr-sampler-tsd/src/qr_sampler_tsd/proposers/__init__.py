# SPDX-License-Identifier: Apache-2.0
"""Who guesses the next token: proposers map what is known of a sequence to a payload."""

from __future__ import annotations

from qr_sampler_tsd.proposers.base import Proposer

__all__ = ["Proposer"]
