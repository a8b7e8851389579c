# SPDX-License-Identifier: Apache-2.0
"""Rung 2: whether a draw is another one under a new number."""

from __future__ import annotations

from array import array
from typing import Final

import numpy as np

from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.rungs.chain import NO_LINE
from qr_sampler_cli.audit.schema.token_lines import Draw

__all__ = ["DrawCopies"]

_FEWEST_BYTES: Final = 16
"""Bytes of a draw from which on the same ones do not come twice by chance."""


class DrawCopies:
    """Remembers the bytes and the time of every draw, in 24 bytes.

    Args:
        rung: Takes the findings.
    """

    def __init__(self, rung: Rung) -> None:
        self._rung = rung
        self._data = array("Q")
        """First 64 bits of the digests of their bytes."""
        self._times = array("Q")
        self._places = array("Q")

    def add(self, line: Draw, place: int) -> None:
        """Takes in a draw."""
        # Version 1 has no digests.
        if line.bytes < _FEWEST_BYTES or line.data_sha256 == NO_LINE:
            return
        self._data.append(int(line.data_sha256[:16], 16))
        self._times.append(line.t_request_ns)
        self._places.append(place)

    def finish(self) -> None:
        """Judges the draws when there are no more of them."""
        data, times, places = (
            np.frombuffer(column, dtype=np.uint64)
            for column in (self._data, self._times, self._places)
        )
        order = np.lexsort((places, times, data))
        same_data = data[order][1:] == data[order][:-1]
        copied = same_data & (times[order][1:] == times[order][:-1])
        for index in np.flatnonzero(copied).tolist():
            self._rung.fail(
                int(places[order[index + 1]]),
                f"{self._rung.places.name(int(places[order[index]]))} is the same draw: its bytes "
                "were asked for at the same time",
            )
        if repeated := int(np.count_nonzero(same_data & ~copied)):
            self._rung.note(f"{repeated} draws have the bytes of another one, asked for later")
