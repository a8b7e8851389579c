# SPDX-License-Identifier: Apache-2.0
"""Which code a ledger was made with."""

from __future__ import annotations

from qr_sampler.records.code_digest.commits import code_commits, commit_of
from qr_sampler.records.code_digest.digests import OUR_PREFIX, code_digest, code_digests

__all__ = ["OUR_PREFIX", "code_commits", "code_digest", "code_digests", "commit_of"]
