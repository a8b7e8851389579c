# SPDX-License-Identifier: Apache-2.0
"""A simulated TrueRNG, and with it any generator that streams."""

from __future__ import annotations

from collections import deque
from typing import Final

from qr_entropy_serial.devices.truerng import KNOCK, MODE_BAUD
from qr_entropy_serial.simulators.device import SimulatedDevice

__all__ = ["SimulatedTrueRng"]

_MODE_OF: Final = {baud: mode for mode, baud in MODE_BAUD.items()}
_TEXT: Final = "normal_ascii"
"""A mode of the Pro models that writes text; the source never asks for it."""


class SimulatedTrueRng(SimulatedDevice):
    """Streams while the line is open; a Pro model changes its mode after the knock.

    What it sends is uniform in every mode but two: text in ``normal_ascii``, and samples of twelve
    bits in words of two bytes in ``raw_binary``.

    Args:
        pro: Whether it has modes.
        rate: Bytes that it makes in a second.
        memory_bytes: Bytes that it keeps when nobody fetches them.
    """

    def __init__(
        self, *, pro: bool = False, rate: float = 400_000.0, memory_bytes: int = 512
    ) -> None:
        super().__init__(rate, memory_bytes)
        self.pro = pro
        self.mode = "normal"
        """Its mode."""
        self._speeds: deque[int] = deque(maxlen=len(KNOCK) + 1)

    def power_up(self) -> None:
        """Has the mode that it was last told, and an empty memory."""
        self.forget()
        self._speeds.clear()

    def leave_in_text_mode(self) -> None:
        """Is as somebody else has left it: it writes hexadecimal digits until it is told a mode."""
        self.mode = _TEXT

    def commanded(self, data: bytes) -> None:
        """Ignores it: the device takes no commands."""

    def opened_at(self, baud: int) -> None:
        """Goes over to the mode that *baud* stands for if the knock came before it."""
        super().opened_at(baud)
        self._speeds.append(baud)
        *before, last = self._speeds
        if self.pro and tuple(before) == KNOCK and last in _MODE_OF and self.fault != "wrong_mode":
            self.mode = _MODE_OF[last]

    def offered(self) -> bytes:
        """Returns what it keeps, in the form of its mode."""
        data = self.waiting()
        if self.mode == _TEXT:
            return data.hex().upper().encode()[: len(data)]
        if self.mode == "raw_binary":
            return bytes(byte & 0x0F if at % 2 else byte for at, byte in enumerate(data))
        return data
