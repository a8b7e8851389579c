# SPDX-License-Identifier: Apache-2.0
"""What the package says of itself."""

from __future__ import annotations

from importlib.metadata import version

import qr_sampler_local


def test_version_is_that_of_the_distribution() -> None:
    assert qr_sampler_local.__version__ == version("qr-sampler-local")
