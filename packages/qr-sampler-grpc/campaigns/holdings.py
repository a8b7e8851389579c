# SPDX-License-Identifier: Apache-2.0
"""What a process holds: descriptors, threads and memory, which the leak campaigns compare."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

SETTLE_S: Final = 30.0


class Held(NamedTuple):
    """What this process holds."""

    descriptors: int
    threads: int
    memory_mib: float

    @classmethod
    def now(cls) -> Held:
        """Counts, after the garbage has been collected and freed memory given back."""
        # The calls of gRPC's asyncio interface refer to themselves.
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return cls(
            len(list(Path("/proc/self/fd").iterdir())),
            len(list(Path("/proc/self/task").iterdir())),
            pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        )

    def is_within(self, before: Held, memory_mib: float, slack: int = 0) -> bool:
        """Returns whether there is about as much as *before*.

        Args:
            before: What was held after the cycles that warm up.
            memory_mib: What an allocator may hold more of.
            slack: How many more descriptors and threads there may be.
        """
        return (
            self.descriptors <= before.descriptors + slack
            and self.threads <= before.threads + slack
            and self.memory_mib <= before.memory_mib + memory_mib
        )

    def since(self, before: Held) -> str:
        """Returns a line about the change since *before*."""
        return (
            f"descriptors {before.descriptors} -> {self.descriptors}, "
            f"threads {before.threads} -> {self.threads}, "
            f"MiB {before.memory_mib:.1f} -> {self.memory_mib:.1f}"
        )


def settled(before: Held, memory_mib: float, slack: int = 0) -> Held:
    """Returns what is held once it is within *before*, or after half a minute.

    Arguments as for :meth:`Held.is_within`.
    """
    deadline_s = time.monotonic() + SETTLE_S
    while True:
        after = Held.now()
        if after.is_within(before, memory_mib, slack) or time.monotonic() >= deadline_s:
            return after
        time.sleep(0.05)
