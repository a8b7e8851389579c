# SPDX-License-Identifier: Apache-2.0
"""Helpers for testing qr-sampler and the sources that plug into it.

:class:`EntropySourceContract` needs pytest, which the extra ``qr-sampler-core[testing]`` installs;
the doubles do not. :class:`ToyHost` plays a host engine in milliseconds, and :func:`check_ledger`
says whether a ledger is what a host has emitted, :func:`check_files` whether its files are chained.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from qr_sampler.testing.chain_checks import chained_lines, check_files
from qr_sampler.testing.doubles import ConstantEntropySource, RecordedEntropySource
from qr_sampler.testing.ledger_checks import EmittedText, check_ledger, records_in
from qr_sampler.testing.stamped_writer import StampedWriter
from qr_sampler.testing.toy_host import ToyHost, ToyRequest, play_script

if TYPE_CHECKING:
    from qr_sampler.testing.contract import EntropySourceContract

__all__ = [
    "ConstantEntropySource",
    "EmittedText",
    "EntropySourceContract",
    "RecordedEntropySource",
    "StampedWriter",
    "ToyHost",
    "ToyRequest",
    "chained_lines",
    "check_files",
    "check_ledger",
    "play_script",
    "records_in",
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
