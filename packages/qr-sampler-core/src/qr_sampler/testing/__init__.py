# SPDX-License-Identifier: Apache-2.0
"""Helpers for testing qr-sampler and the sources that plug into it.

:class:`EntropySourceContract` needs pytest, which the extra ``qr-sampler-core[testing]`` installs;
the doubles do not.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from qr_sampler.testing.doubles import ConstantEntropySource, RecordedEntropySource
from qr_sampler.testing.stamped_writer import StampedWriter

if TYPE_CHECKING:
    from qr_sampler.testing.contract import EntropySourceContract

__all__ = [
    "ConstantEntropySource",
    "EntropySourceContract",
    "RecordedEntropySource",
    "StampedWriter",
]

_CONTRACT_MODULE = "qr_sampler.testing.contract"


def __getattr__(name: str) -> object:
    """Returns the contract on first use, with pytest's detailed assertion messages switched on."""
    if name != "EntropySourceContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import pytest
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name} needs pytest; install the extra qr-sampler-core[testing]"
        ) from error
    if _CONTRACT_MODULE not in sys.modules:
        pytest.register_assert_rewrite(_CONTRACT_MODULE)
    from qr_sampler.testing.contract import EntropySourceContract

    globals()[name] = EntropySourceContract
    return EntropySourceContract
