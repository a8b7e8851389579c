# SPDX-License-Identifier: Apache-2.0
"""Deprecated: the names are in :mod:`qr_sampler`."""

from __future__ import annotations

from qr_sampler._moved import moved

__getattr__ = moved(__name__, "qr_sampler")
