# SPDX-License-Identifier: Apache-2.0
"""Threads for calls of one kind, so that calls of another kind cannot use them up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

import grpc

__all__ = ["Handler", "Lane", "Refusals"]

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
"""What answers one call."""

_WAITING_REFUSALS: Final = 4096

_Result = TypeVar("_Result")
_Behaviour = TypeVar("_Behaviour", bound=Callable[..., Any])


class Lane(ThreadPoolExecutor):
    """A thread pool that knows how many calls it holds.

    Args:
        threads: How many calls run at once.
        name: What the threads are called.
        waiting: How many more may wait for a thread before the lane is full.
    """

    def __init__(self, threads: int, name: str, *, waiting: int = 0) -> None:
        super().__init__(threads, name)
        self.capacity: Final = threads + waiting
        self._counting = threading.Lock()
        self._held = 0

    @property
    def is_full(self) -> bool:
        """Whether a further call has to be refused."""
        return self._held >= self.capacity

    def carries(self, behaviour: _Behaviour) -> _Behaviour:
        """Returns *behaviour*, which gRPC runs in this lane from now on."""
        # gRPC looks for this name; without it the call would run among the server's others.
        behaviour.experimental_thread_pool = self  # type: ignore[attr-defined]
        return behaviour

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> Future[_Result]:
        """Counts the call until it has ended."""
        with self._counting:
            self._held += 1
        try:
            future = super().submit(fn, *args, **kwargs)
        except RuntimeError:
            self._leave()
            raise
        future.add_done_callback(self._leave)
        return future

    def _leave(self, _future: object = None) -> None:
        with self._counting:
            self._held -= 1


class Refusals(Lane):
    """The thread that refuses calls: it waits for nothing, so it is soon free again."""

    def __init__(self) -> None:
        super().__init__(1, "qr-entropy-refusals", waiting=_WAITING_REFUSALS)

    def carry(self, refuse: Callable[..., NoReturn]) -> Handler | None:
        """Returns what ends a call with *refuse*, without waiting for its message.

        In a flood it returns ``None``: gRPC then ends the call by itself as unimplemented.
        """
        if self.is_full:
            return None
        # A stream of requests need not be read.
        return grpc.stream_unary_rpc_method_handler(self.carries(refuse))
