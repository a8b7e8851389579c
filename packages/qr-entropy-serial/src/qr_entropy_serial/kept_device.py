# SPDX-License-Identifier: Apache-2.0
"""A device that the first draw opens and later ones find open, until one of them fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.per_process import PerProcess

__all__ = ["Closable", "KeptDevice"]


class Closable(Protocol):
    """What is open."""

    def close(self) -> None:
        """Gives it back."""


_Device = TypeVar("_Device", bound=Closable)
_Result = TypeVar("_Result")


class KeptDevice(Generic[_Device]):
    """A device of one source, opened anew after a failure or a fork. Use it under :attr:`lock`.

    A child that inherits an open port does not close it, and cannot open it either before its
    parent gives it back.

    Args:
        opened: Opens the device before a deadline, in nanoseconds of ``time.monotonic_ns()``.
        failures: Errors that mean that the device is of no use as it is.
        hopeless: Those of them that it is not opened again for at once.
    """

    def __init__(
        self,
        opened: Callable[[int], _Device],
        *,
        failures: tuple[type[Exception], ...] = (OSError,),
        hopeless: tuple[type[Exception], ...] = (TimeoutError,),
    ) -> None:
        self._opened = opened
        self._failures = failures
        self._hopeless = hopeless
        self._open: PerProcess[list[_Device]] = PerProcess(list)
        self._locks: PerProcess[threading.Lock] = PerProcess(threading.Lock)

    @property
    def lock(self) -> threading.Lock:
        """Held by the one draw of this process that uses the device."""
        return self._locks.get()

    def use(
        self,
        deadline_ns: int,
        work: Callable[[_Device], _Result],
        lost: Callable[[], int],
        refusal: Callable[[Exception, int], EntropyUnavailableError],
    ) -> _Result:
        """Returns what *work* returns; it may be called twice where nothing had been received.

        Args:
            deadline_ns: Until when the device has to be open.
            work: Uses the open device.
            lost: Returns how many bytes *work* has received in vain.
            refusal: Makes what is raised of a failure and that number.

        Raises:
            EntropyUnavailableError: When the device fails, or cannot be opened.
        """
        was_open = bool(self._open.get())
        try:
            return work(self._get(deadline_ns))
        except self._failures as error:
            self.drop()
            if was_open and not lost() and not isinstance(error, self._hopeless):
                # Perhaps it was unplugged between two draws, and is back.
                return self.use(deadline_ns, work, lost, refusal)
            raise refusal(error, lost()) from error
        except BaseException:
            # Interrupted by a signal: what is still on its way belongs to nobody.
            self.drop()
            raise

    def drop(self) -> None:
        """Closes the device if it is open."""
        kept = self._open.get()
        while kept:
            kept.pop().close()

    def close(self) -> None:
        """Gives the device back after a draw in progress; a later draw opens it again."""
        with self.lock:
            self.drop()

    def _get(self, deadline_ns: int) -> _Device:
        kept = self._open.get()
        if not kept:
            kept.append(self._opened(deadline_ns))
        return kept[0]
