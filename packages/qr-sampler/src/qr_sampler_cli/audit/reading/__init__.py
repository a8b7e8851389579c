# SPDX-License-Identifier: Apache-2.0
"""From the bytes of a file to records, or to what is wrong with them."""

from __future__ import annotations

__all__: list[str] = []
