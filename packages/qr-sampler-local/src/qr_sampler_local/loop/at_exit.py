# SPDX-License-Identifier: Apache-2.0
"""Samplers that are still open when their process ends write their records then."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from multiprocessing.util import Finalize
from typing import Final
from weakref import WeakKeyDictionary

from qr_sampler.host import RecordKeeper

__all__ = ["close_at_exit"]

_process_of: Final[MutableMapping[RecordKeeper, int]] = WeakKeyDictionary()
_hooked: Final[set[int]] = set()
"""The process that has its hook."""


def close_at_exit(sampler: RecordKeeper) -> None:
    """Has *sampler* closed when this process ends, unless that has been done by then."""
    _process_of[sampler] = os.getpid()
    if os.getpid() not in _hooked:
        _hooked.clear()
        _hooked.add(os.getpid())
        # Children of multiprocessing leave without running atexit hooks. Ledgers are ended after
        # that, with the priority 1.
        Finalize(None, _close_all, exitpriority=10)


def _close_all() -> None:
    for sampler, process in list(_process_of.items()):
        # A forked process does not end the texts of its parent.
        if process == os.getpid():
            sampler.close()
