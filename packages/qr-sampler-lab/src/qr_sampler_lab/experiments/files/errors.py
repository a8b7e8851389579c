# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with the files of a study or of a laboratory."""

from __future__ import annotations

from qr_sampler.errors import QRSamplerError

__all__ = ["RecordError", "StudyError"]


class RecordError(QRSamplerError, ValueError):
    """A register or a journal is broken, or cannot be read or written."""


class StudyError(QRSamplerError, ValueError):
    """A study does not allow what was asked for."""
