# SPDX-License-Identifier: Apache-2.0
"""Files that hold a secret of this package: who else can read or change them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from qr_sampler.settings import private_files

__all__ = ["warn_of_others"]

_LOGGER: Final = logging.getLogger("qr_sampler.grpc")


def warn_of_others(path: Path, what: str) -> None:
    """Warns of others, as :func:`qr_sampler.settings.private_files.warn_of_others` does.

    Args:
        path: The file, which need not exist.
        what: What it holds, such as ``"API key"``.
    """
    private_files.warn_of_others(path, what, _LOGGER)
