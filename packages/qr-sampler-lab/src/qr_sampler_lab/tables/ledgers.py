# SPDX-License-Identifier: Apache-2.0
"""Reads ledgers: their tokens in the order of time, and on the way everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from qr_sampler_cli.audit.files import LedgerFile, ledgers_of
from qr_sampler_cli.audit.schema.run_lines import Genesis
from qr_sampler_lab.tables.chunking import Encoders, chunk_of
from qr_sampler_lab.tables.columns import TokenChunk
from qr_sampler_lab.tables.lines import FileLines
from qr_sampler_lab.tables.ordering import Stream, in_order, merged
from qr_sampler_lab.tables.rows import Numbering, RunRows

__all__ = ["CHUNK", "WINDOW", "LedgerReading"]

WINDOW: Final = 2**16
"""Number of tokens among which those of a run are put in order, if nothing else is said."""

CHUNK: Final = 2**14
"""Number of tokens that become columns at once."""


class LedgerReading:
    """Ledgers on the way to columns.

    Args:
        paths: Ledgers, or directories of them.
        window: Number of tokens among which those of a run are put in order.
        with_rows: Called now and then with a run whose ``draws``, ``sequences`` and ``discards``
            may be looked at before they are dropped.

    Raises:
        NotALedgerError: When a path leads to anything else.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        window: int = WINDOW,
        with_rows: Callable[[RunRows], object] | None = None,
    ) -> None:
        self._window = window
        self._with_rows = with_rows
        self._encoders = Encoders()
        numbering = Numbering()
        self.runs = [RunRows(files, numbering) for files in ledgers_of(paths)]
        """The runs."""

    def chunks(self) -> Iterator[TokenChunk]:
        """Yields all tokens: those of runs on one clock in its order, those of others in turn.

        Raises:
            NotALedgerError: When a file cannot be read.
            OrderError: When tokens are further from their place than *window*.
            TablesError: When more has to be remembered than can be.
        """
        clocks = [(_clock_of(run.files[0]), run) for run in self.runs]
        began = {clock: run.files[0].began[1] for clock, run in reversed(clocks)}
        for clock in sorted(began, key=lambda clock: (began[clock], clock)):
            yield from merged(
                Stream(run.files[0].began[0], partial(self._tokens_of, run))
                for own, run in clocks
                if own == clock
            )

    def _tokens_of(self, run: RunRows) -> Iterator[TokenChunk]:
        name = run.files[0].run_id
        return in_order(self._columns_of(run), window=self._window, name=f"run {name[:40]!r}")

    def _columns_of(self, run: RunRows) -> Iterator[TokenChunk]:
        name = run.files[0].run_id
        for _ in run.read():
            if self._with_rows is not None:
                self._with_rows(run)
            for rows in (run.draws, run.sequences, run.discards):
                rows.clear()
            if len(run.tokens) >= CHUNK:
                yield chunk_of(run.tokens, name, self._encoders)
                run.tokens.clear()
        if run.tokens:
            yield chunk_of(run.tokens, name, self._encoders)
            run.tokens.clear()


def _clock_of(file: LedgerFile) -> str:
    """Returns a name of the clock that a run's times are on: the boot, or the run itself."""
    for record in FileLines(file):
        if isinstance(record, Genesis) and record.boot_id:
            return f"boot {record.boot_id}"
        break
    return f"run {file.run_id} {file.pid} {file.path}"
