# SPDX-License-Identifier: Apache-2.0
"""Switches the ledger of an engine off and on, which engines themselves cannot do."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

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
        self._journals: WeakSet[Journal] = WeakSet()
        switch = self

        class SwitchedJournal(Journal):
            def __init__(self, *arguments: Any, **more: Any) -> None:
                super().__init__(*arguments, **more)
                switch._journals.add(self)

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

    def outside_s(self) -> float:
        """Returns the seconds of processors that processes which write ledgers have taken."""
        pids = [journal.writing_process for journal in self._journals]
        return sum(_processor_s(pid) for pid in pids if pid is not None)


def _processor_s(pid: int) -> float:
    """Returns the seconds that all threads of a process have had (Linux).

    The number of a clock is that which ``clock_getcpuclockid`` returns: of the bits of ``~pid``,
    three places up, and 2 for the time that was scheduled.
    """
    return time.clock_gettime(~pid << 3 | 2)
