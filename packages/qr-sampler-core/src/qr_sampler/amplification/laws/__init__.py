# SPDX-License-Identifier: Apache-2.0
"""The distributions that statistics of a block have when its bytes are ideal."""

from __future__ import annotations

__all__: list[str] = []
