# SPDX-License-Identifier: Apache-2.0
"""The latency timer of FTDI converters, which decides how long a token's last bytes wait."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["latency_remark"]

_TERMINALS: Final = Path("/sys/class/tty")
_SHORT_MS: Final = 2


def latency_remark(path: str, terminals: Path = _TERMINALS) -> str:
    """Returns advice if the converter at *path* holds bytes back for long; empty if not.

    Linux tells and sets the time by the attribute ``latency_timer`` of its driver ``ftdi_sio``;
    other ports have none.

    Args:
        path: A serial port, or a link to it.
        terminals: Where the system describes its terminals.
    """
    name = Path(os.path.realpath(path)).name
    attribute = terminals / name / "device" / "latency_timer"
    try:
        held_ms = int(attribute.read_text("ascii"))
    except (OSError, ValueError):
        return ""
    if held_ms <= _SHORT_MS:
        return ""
    return f"its converter holds bytes back for {held_ms} ms; set it to 1: echo 1 > {attribute}"
