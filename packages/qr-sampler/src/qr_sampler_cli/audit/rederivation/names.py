# SPDX-License-Identifier: Apache-2.0
"""What a model can be told to compute in, and where."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["DeviceName", "DtypeName"]

DtypeName: TypeAlias = Literal["float32", "bfloat16", "float16"]
"""Data types, as torch calls them."""

DeviceName: TypeAlias = Literal["cpu", "cuda", "mps"]
"""Devices, as torch calls them."""
