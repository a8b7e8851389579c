# SPDX-License-Identifier: Apache-2.0
"""The line about the files of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qr_sampler.records.kinds import Record

__all__ = ["ModelRecord"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord(Record):
    """Which files the tokens were computed with, as far as the engine has not changed them."""

    kind: ClassVar[str] = "model"

    name: str
    """Public name of the model."""
    manifest_sha256: str
    """Digest of the manifest, see :class:`~qr_sampler.records.model_manifest.ModelManifest`."""
    files: dict[str, str]
    """SHA-256 of each file, by its path in the model's directory."""
