# SPDX-License-Identifier: Apache-2.0
"""Means of the sessions of an arm, whatever their order."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from qr_sampler_lab.analysis import Session
from qr_sampler_lab.tables.columns import Floats, Labels
from qr_sampler_lab.tables.errors import TablesError

__all__ = ["SessionMeans"]

MOST_SESSIONS: Final = 2**16
"""Largest number of sessions of an arm."""


class SessionMeans:
    """Number and sum of the scores of every session. Memory: 24 bytes a session."""

    def __init__(self) -> None:
        self._counts = np.zeros(0, np.int64)
        self._sums = np.zeros(0)
        self._names: Labels | None = None

    def add(self, scores: Floats, session: Labels) -> None:
        """Adds scores of sessions.

        Raises:
            TablesError: When there are too many sessions.
        """
        if not len(scores):
            return
        largest = int(session.codes.max()) + 1
        if largest > MOST_SESSIONS:
            raise TablesError(
                f"there are more than {MOST_SESSIONS:,} sessions; name another column with "
                "--session, such as run"
            )
        missing = largest - len(self._counts)
        if missing > 0:
            self._counts = np.append(self._counts, np.zeros(missing, np.int64))
            self._sums = np.append(self._sums, np.zeros(missing))
        self._counts += np.bincount(session.codes, minlength=len(self._counts))
        self._sums += np.bincount(session.codes, weights=scores, minlength=len(self._sums))
        self._names = session

    def sessions(self, arm: str) -> list[Session]:
        """Returns the mean score of every session of *arm*, with the error of ideal scores."""
        if self._names is None:
            return []
        return [
            Session(
                name=str(self._names.names[code]),
                arm=arm,
                n=int(self._counts[code]),
                effect=float(self._sums[code] / self._counts[code]),
                error=1.0 / math.sqrt(int(self._counts[code])),
            )
            for code in np.flatnonzero(self._counts).tolist()
        ]
