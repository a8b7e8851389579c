# SPDX-License-Identifier: Apache-2.0
"""Switches the ledger of an engine off and on, which engines themselves cannot do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qr_sampler.host import Entry
from qr_sampler.host.journal import Journal
from qr_sampler.host.session import session_records
from qr_sampler.sampling import pipeline
from qr_sampler.sampling.data_digest import DataDigest, digest_of

__all__ = ["LedgerSwitch"]


class LedgerSwitch:
    """A switch for the ledgers of all engines that are made from now on in this process.

    While it is off, they do what engines do that have no ledger: draws are not hashed, and the
    thread behind the steps counts what they have handed over and writes nothing.
    """

    def __init__(self) -> None:
        self.on = True
        switch = self

        class SwitchedJournal(Journal):
            def write(self, entries: Iterable[Entry]) -> None:
                if switch.on:
                    super().write(entries)

        def switched_digest(data: bytes) -> DataDigest | None:
            return digest_of(data) if switch.on else None

        replacements: dict[Any, tuple[str, Any]] = {
            session_records: ("Journal", SwitchedJournal),
            pipeline: ("digest_of", switched_digest),
        }
        for module, (name, replacement) in replacements.items():
            if not hasattr(module, name):
                raise RuntimeError(f"{module.__name__} makes no use of {name}: nothing is switched")
            setattr(module, name, replacement)
