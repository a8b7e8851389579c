# SPDX-License-Identifier: Apache-2.0
"""Helpers for testing qr-sampler and what plugs into it.

:class:`EntropySourceContract`, :class:`AmplifierContract`, :class:`TemperatureStrategyContract` and
:class:`HostContract` need pytest, which the extra ``qr-sampler-core[testing]`` installs; the rest
does not. :class:`ToyHost` plays a host engine in milliseconds, and :func:`check_ledger` says
whether a ledger is what a host has emitted, :func:`check_files` whether its files are chained.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

from qr_sampler.testing.chain_checks import chained_lines, check_files
from qr_sampler.testing.doubles import ConstantEntropySource, RecordedEntropySource
from qr_sampler.testing.hosts.driver import HostDriver, HostRequest
from qr_sampler.testing.hosts.witness import WitnessSource
from qr_sampler.testing.ledger_checks import EmittedText, check_ledger, records_in
from qr_sampler.testing.stamped_writer import StampedWriter
from qr_sampler.testing.toy_host import ToyHost, ToyRequest, play_script

if TYPE_CHECKING:
    from qr_sampler.testing.contract import EntropySourceContract
    from qr_sampler.testing.contracts.amplifiers import AmplifierContract
    from qr_sampler.testing.contracts.strategies import TemperatureStrategyContract
    from qr_sampler.testing.hosts.contract import HostContract

__all__ = [
    "AmplifierContract",
    "ConstantEntropySource",
    "EmittedText",
    "EntropySourceContract",
    "HostContract",
    "HostDriver",
    "HostRequest",
    "RecordedEntropySource",
    "StampedWriter",
    "TemperatureStrategyContract",
    "ToyHost",
    "ToyRequest",
    "WitnessSource",
    "chained_lines",
    "check_files",
    "check_ledger",
    "play_script",
    "records_in",
]

_CONTRACTS: Final = {
    "EntropySourceContract": "qr_sampler.testing.contract",
    "AmplifierContract": "qr_sampler.testing.contracts.amplifiers",
    "TemperatureStrategyContract": "qr_sampler.testing.contracts.strategies",
    "HostContract": "qr_sampler.testing.hosts.contract",
}
"""Modules that import pytest, by what they offer."""

_CLAUSES: Final = (
    "contracts.amplifiers",
    "contracts.answers",
    "contracts.draws",
    "contracts.failures",
    "contracts.just_in_time",
    "contracts.lifetimes",
    "contracts.quiet_import",
    "contracts.source_clauses",
    "contracts.strategies",
    "hosts.draws",
    "hosts.failures",
    "hosts.interruptions",
    "hosts.records",
    "hosts.watched_run",
)
"""Modules whose assertions explain themselves once pytest has rewritten them."""


def __getattr__(name: str) -> object:
    """Returns a contract on first use, with pytest's detailed assertion messages switched on."""
    if name not in _CONTRACTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import pytest
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name} needs pytest; install the extra qr-sampler-core[testing]"
        ) from error
    clauses = {f"qr_sampler.testing.{module}" for module in _CLAUSES}
    pytest.register_assert_rewrite(*sorted(clauses - sys.modules.keys()))
    contract = getattr(import_module(_CONTRACTS[name]), name)
    globals()[name] = contract
    return contract
