# SPDX-License-Identifier: Apache-2.0
"""Where a conversation is shown: the replies on standard output, remarks on standard error."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from rich.text import Text

from qr_sampler.errors import QRSamplerError
from qr_sampler_cli.terminal.consoles import check_output, console_on, progress_console

__all__ = ["Screen"]


class Screen:
    """Shows replies piece by piece.

    Make it before standard output is reserved: what engines print there goes elsewhere while they
    are loaded, and the screen keeps a descriptor of its own.
    """

    def __init__(self) -> None:
        self._output = sys.stdout
        self._file = _own_output()
        self._replies = console_on(self._file)
        self._remarks = progress_console()

    @property
    def colourful(self) -> bool:
        """Whether backgrounds can be seen: not in files, pipes, or where NO_COLOR is set."""
        return self._replies.color_system is not None and not self._replies.no_color

    def show(self, text: Text | str, *, end: str = "") -> None:
        """Shows a piece of a reply at once.

        Raises:
            QRSamplerError: When nobody reads any more.
        """
        try:
            self._replies.print(text, end=end, soft_wrap=True)
        except OSError as error:
            raise QRSamplerError(f"cannot write the reply: {error.strerror}") from error

    def remark(self, text: Text | str) -> None:
        """Shows a line that is no part of the conversation."""
        self._remarks.print(text, soft_wrap=True)

    @contextlib.contextmanager
    def in_front(self) -> Iterator[None]:
        """Makes this standard output again: editing a line needs the terminal itself."""
        if self._file is self._output:
            yield
            return
        elsewhere = os.dup(1)
        os.dup2(self._file.fileno(), 1)
        try:
            with contextlib.redirect_stdout(self._output):
                yield
        finally:
            os.dup2(elsewhere, 1)
            os.close(elsewhere)

    def close(self) -> None:
        """Gives the descriptor back."""
        if self._file is not self._output:
            with contextlib.suppress(OSError):  # Nobody reads any more, which show() has said.
                self._file.close()


def _own_output() -> TextIO:
    """Returns a stream to where standard output leads now.

    What cannot be encoded there is escaped: a token is no reason to end a conversation.
    """
    check_output()
    try:
        own = os.dup(sys.stdout.fileno())
    except io.UnsupportedOperation:  # There is no descriptor behind it, in tests for example.
        return sys.stdout
    return os.fdopen(own, "w", encoding=sys.stdout.encoding, errors="backslashreplace")
