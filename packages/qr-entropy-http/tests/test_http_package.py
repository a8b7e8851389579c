# SPDX-License-Identifier: Apache-2.0
"""What the package says of itself."""

from __future__ import annotations

from importlib.metadata import version

import qr_entropy_http


def test_version_is_that_of_the_distribution() -> None:
    assert qr_entropy_http.__version__ == version("qr-entropy-http")
