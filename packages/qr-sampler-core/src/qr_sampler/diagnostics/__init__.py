# SPDX-License-Identifier: Apache-2.0
"""Diagnostics: what the ``qr_sampler`` logger says of each token."""

from __future__ import annotations

from qr_sampler.diagnostics.sampling_logger import SamplingLogger

__all__ = ["SamplingLogger"]
