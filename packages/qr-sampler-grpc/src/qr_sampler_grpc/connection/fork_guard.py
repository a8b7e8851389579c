# SPDX-License-Identifier: Apache-2.0
"""Keeps a forked process from waiting forever for gRPC threads that only its parent has."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["ForkGuard"]

_TRUE_VALUES: Final = frozenset({"1", "true", "True", "TRUE", "yes", "Yes", "YES"})
"""What gRPC itself accepts."""


class ForkGuard:
    """Knows which process used gRPC first, and whether gRPC survives a fork of it.

    gRPC's threads do not exist in a forked child, but its locks and queues do: a call in the child
    may then hang past any deadline. gRPC repairs itself after a fork only when the variable
    ``GRPC_ENABLE_FORK_SUPPORT`` was set before the process started. A child whose parent never used
    gRPC is not affected.
    """

    def __init__(self) -> None:
        self._first_user: int | None = None

    def reason_to_refuse(self) -> str:
        """Returns why gRPC must not be used in this process, or ``""``; notes the use otherwise."""
        process = os.getpid()
        if self._first_user is None:
            self._first_user = process
        if self._first_user == process or _fork_support_is_enabled():
            return ""
        return (
            f"gRPC was in use in process {self._first_user} when it was forked, and would hang in "
            "the child; set GRPC_ENABLE_FORK_SUPPORT=1 before starting, start processes with "
            "'spawn', or do not draw before the fork"
        )


def _fork_support_is_enabled() -> bool:
    return os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "") in _TRUE_VALUES


FORK_GUARD: Final = ForkGuard()
"""The one guard of this process: gRPC's state is global, too."""
