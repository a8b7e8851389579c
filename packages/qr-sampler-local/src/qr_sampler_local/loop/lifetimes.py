# SPDX-License-Identifier: Apache-2.0
"""Samplers that nobody closes write their records when their process ends."""

from __future__ import annotations

import os
from abc import abstractmethod
from multiprocessing.util import Finalize
from typing import Final
from weakref import WeakSet

from qr_sampler.host import RecordKeeper, SamplingSession

__all__ = ["ClosedAtExit"]


class ClosedAtExit(RecordKeeper):
    """Keeps records, and is closed when its process ends unless that has been done by then.

    Args:
        session: What the host samples with.
    """

    def __init__(self, session: SamplingSession) -> None:
        super().__init__(session)
        _all.add(self)
        self._belongs_here()

    @abstractmethod
    def forget(self) -> None:
        """Leaves everything to the process that this one was forked from."""

    def _belongs_here(self) -> None:
        """Has this process close it in the end, if it still exists then."""
        self.process = os.getpid()
        if self.process not in _hooked:
            _hooked.clear()
            _hooked.add(self.process)
            # Children of multiprocessing leave without running atexit hooks. Ledgers are ended
            # after that, with the priority 1.
            Finalize(None, _close_all, exitpriority=10)

    def _has_more_to_record(self, more: bool) -> None:
        """Says whether it has to exist until then, even if nobody refers to it any more."""
        if more:
            self._belongs_here()
            _needed.add(self)
        else:
            _needed.discard(self)


_all: Final[WeakSet[ClosedAtExit]] = WeakSet()
_needed: Final[set[ClosedAtExit]] = set()
_hooked: Final[set[int]] = set()
"""The process that has its hook."""


def _close_all() -> None:
    for keeper in list(_all):
        # What a forked process has not used belongs to its parent alone.
        if keeper.process == os.getpid():
            keeper.close()


def _forget_all() -> None:
    _needed.clear()
    for keeper in list(_all):
        keeper.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
