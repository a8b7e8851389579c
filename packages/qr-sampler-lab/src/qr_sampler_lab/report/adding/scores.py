# SPDX-License-Identifier: Apache-2.0
"""The scores of an arm in a file without a name, and two arms side by side.

Which arms there are is known only when all tokens are read, and the k-th score of an arm may come
long before that of its partner.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np

from qr_sampler_lab.analysis import EProcess, PairedStreams
from qr_sampler_lab.report.adding.paths import SumPath
from qr_sampler_lab.tables.columns import Floats
from qr_sampler_lab.tables.errors import TablesError

__all__ = ["Contrast", "ScoreFile"]

_PIECE = 2**16
"""Scores that are read at once."""


class ScoreFile:
    """Scores in the order of time, eight bytes each, on the disk."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115

    def add(self, scores: Floats) -> None:
        """Appends scores.

        Raises:
            TablesError: When the disk has no room for them.
        """
        try:
            self._file.write(np.ascontiguousarray(scores, dtype=np.float64).tobytes())
        except OSError as error:
            raise TablesError(
                f"the scores of an arm take eight bytes a token in {tempfile.gettempdir()}, which "
                f"cannot be written: {error.strerror}; set TMPDIR to another directory"
            ) from error

    def pieces(self) -> Iterator[Floats]:
        """Yields all scores, some at a time."""
        self._file.seek(0)
        while data := self._file.read(8 * _PIECE):
            yield np.frombuffer(data, dtype=np.float64)

    def close(self) -> None:
        """Gives the file up."""
        self._file.close()


class Contrast:
    """Two arms side by side: the e-process of their scores in pairs, the k-th with the k-th.

    Args:
        arm: Scores of an arm.
        control: Those of its control.
        tau: Scale of the shifts that the e-process bets on.
        alpha: Its error probability.
    """

    def __init__(self, arm: ScoreFile, control: ScoreFile, *, tau: float, alpha: float) -> None:
        self.evidence = EProcess(tau=tau, alpha=alpha)
        """Of the differences."""
        self.path = SumPath()
        """Of the differences."""
        pairs = PairedStreams()
        for mine, other in zip(arm.pieces(), control.pieces(), strict=False):
            is_arm = np.arange(len(mine) + len(other)) < len(mine)
            differences = pairs.add(np.concatenate([mine, other]), is_arm)
            self.evidence.add(differences)
            self.path.add(differences)
