# SPDX-License-Identifier: Apache-2.0
"""Commands and their answers, in the vendor's QCC protocol, before a deadline.

Codes, sizes and layouts are those of :mod:`qcicada.protocol`, which is made to be used with any
transport. The transport of that library waits for fixed times, three seconds for an answer, and
shares the port with whoever opens it; here a draw has a deadline, and the port one owner.
"""

from __future__ import annotations

from typing import Final

from qcicada import protocol

from qr_entropy_serial.port import SerialPort

__all__ = ["BAUD", "AnswerError", "QccLink", "RefusedError"]

BAUD: Final = 1_000_000
"""Speed of the serial line of a QCicada."""

_QUIET_S: Final = 0.05
"""After it has stopped, what a device has sent is here within the latency timer of the converter,
16 ms."""


class AnswerError(OSError):
    """The device has answered with something that is no answer."""


class RefusedError(OSError):
    """The device has refused a command."""


class QccLink:
    """A line to a device. Not for several threads at once.

    Args:
        path: The serial port.
        deadline_ns: Reading of :func:`time.monotonic_ns` at which to give up.

    Raises:
        TimeoutError: When the device does not fall silent in time.
        OSError: When the port cannot be opened.
    """

    def __init__(self, path: str, deadline_ns: int) -> None:
        self._port = SerialPort(path, BAUD)
        try:
            # Its last user may have left it sending.
            self._port.write(protocol.CMD_STOP, deadline_ns)
            self._port.settle(_QUIET_S, deadline_ns)
        except BaseException:
            self.close()
            raise

    def command(self, code: bytes, deadline_ns: int, payload: bytes = b"") -> bytes:
        """Returns what the device answers to a command, after the line has been emptied.

        Args:
            code: One of the commands of :mod:`qcicada.protocol`.
            deadline_ns: Reading of :func:`time.monotonic_ns` at which to give up.
            payload: What follows the code.

        Raises:
            RefusedError: When the device refuses.
            AnswerError: When the answer is none.
            TimeoutError: When the deadline passes first.
            OSError: When the port is gone.
        """
        expected = protocol.SUCCESS_RESPONSE[code]
        self._port.drop_input()
        self._port.write(protocol.build_cmd(code, payload), deadline_ns)
        answer = self._port.read(1, deadline_ns)
        if answer == protocol.RESP_NACK:
            raise RefusedError(f"it refuses the command 0x{code.hex()}")
        if answer != expected:
            raise AnswerError(f"it answers 0x{answer.hex()} to the command 0x{code.hex()}")
        return self._port.read(protocol.PAYLOAD_SIZE[expected], deadline_ns)

    def read_into(self, received: bytearray, n: int, deadline_ns: int) -> None:
        """Appends the *n* bytes that follow an answer to *received*.

        Raises:
            TimeoutError: When the deadline passes first.
            OSError: When the port is gone.
        """
        self._port.read_into(received, n, deadline_ns)

    def close(self) -> None:
        """Gives the port back."""
        self._port.close()
