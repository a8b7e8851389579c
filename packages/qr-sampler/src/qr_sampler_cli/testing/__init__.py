# SPDX-License-Identifier: Apache-2.0
"""Help for tests of what the front door verifies."""

from __future__ import annotations

__all__: list[str] = []
