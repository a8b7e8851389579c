# SPDX-License-Identifier: Apache-2.0
"""Digests of a model's files, so that others can tell whether theirs is the same."""

from __future__ import annotations

from qr_sampler.records.model_manifest.digest_cache import DigestCache, default_cache
from qr_sampler.records.model_manifest.manifest import (
    HashingStoppedError,
    ModelManifest,
    manifest_of,
)

__all__ = ["DigestCache", "HashingStoppedError", "ModelManifest", "default_cache", "manifest_of"]
