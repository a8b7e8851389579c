# SPDX-License-Identifier: Apache-2.0
"""Deprecated: :mod:`qr_sampler.sampling.commitment`; most of its names are in :mod:`qr_sampler`."""

from __future__ import annotations

from qr_sampler._moved import moved

__getattr__ = moved(__name__, "qr_sampler.sampling.commitment")
