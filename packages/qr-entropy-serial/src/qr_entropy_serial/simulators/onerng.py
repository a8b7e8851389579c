# SPDX-License-Identifier: Apache-2.0
"""A simulated OneRNG, which reads commands as its firmware does."""

from __future__ import annotations

from collections import deque
from typing import Final

from qr_entropy_serial.devices.onerng import PACKET_BYTES
from qr_entropy_serial.simulators.device import SimulatedDevice

__all__ = ["SimulatedOneRng"]

_POOL_BYTES: Final = 7 * 1024
_PACKETS_PER_FRAME: Final = 19
"""Bulk transfers of 64 bytes in a millisecond of full-speed USB (USB 2.0, table 5-9)."""
_PREFIX: Final = b"cmd"
_NO_AVALANCHE, _RADIO = 4, 2


class SimulatedOneRng(SimulatedDevice):
    """Gathers noise into its pool, and sends packets of 64 bytes of it unless it is paused.

    Whitening is left out, since the noise is uniform anyway; a full pool keeps what it has, where
    the device would mix new noise into it.

    Args:
        rate: Bytes of noise that it gathers in a second.
        memory_bytes: Size of its pool.
        obeys_after_s: Seconds until it obeys a command; it goes on with what it does meanwhile.
    """

    def __init__(
        self,
        *,
        rate: float = 400_000.0,
        memory_bytes: int = _POOL_BYTES,
        obeys_after_s: float = 0.0,
    ) -> None:
        super().__init__(rate, memory_bytes)
        self.obeys_after_s = obeys_after_s
        self._clock_s = 0.0
        self._told: deque[tuple[float, bytes]] = deque()
        self.paused = True
        """Whether it sends nothing."""
        self.sources = 0
        """The digit that has chosen its sources of noise."""
        self._command = b""

    @property
    def gathers(self) -> bool:
        """Whether one of its sources of noise is on."""
        return not self.sources & _NO_AVALANCHE or bool(self.sources & _RADIO)

    def power_up(self) -> None:
        """Gathers noise and is paused, as the firmware begins."""
        self.forget()
        self._told.clear()
        self.paused, self.sources, self._command = True, 0, b""

    def commanded(self, data: bytes) -> None:
        """Obeys every ``cmd`` and its character, in time; other bytes are passed over."""
        self._told.append((self._clock_s + self.obeys_after_s, data))
        self._obey_what_is_due()

    def pass_time(self, seconds: float) -> None:
        """Obeys what it was told, and gathers the noise of *seconds*."""
        self._clock_s += seconds
        self._obey_what_is_due()
        super().pass_time(seconds)

    def _obey_what_is_due(self) -> None:
        while self._told and self._told[0][0] <= self._clock_s:
            self._take(self._told.popleft()[1])

    def _take(self, data: bytes) -> None:
        for code in data:
            character = bytes((code,))
            if self._command == _PREFIX:
                self._command = b""
                self._obey(character)
            elif _PREFIX.startswith(self._command + character):
                self._command += character
            else:
                self._command = b""

    def offered(self) -> bytes:
        """Returns whole packets of its pool, as many as fit into a frame, unless it is paused."""
        packets = min(len(self.waiting()) // PACKET_BYTES, _PACKETS_PER_FRAME)
        return b"" if self.paused else self.waiting()[: packets * PACKET_BYTES]

    def _obey(self, character: bytes) -> None:
        if character.isdigit() and self.fault != "wrong_mode":
            self.sources = int(character)
        elif character == b"O":
            self.paused = False
        elif character == b"o":
            self.paused = True
        elif character == b"w":
            self.forget()
