# SPDX-License-Identifier: Apache-2.0
"""The ledger file and the log of one engine process."""

from __future__ import annotations

import math
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from qr_sampler.components.foreign_components import foreign_components
from qr_sampler.diagnostics import SamplingLogger
from qr_sampler.entropy.source import EntropySource
from qr_sampler.host.public_text import public_model_name
from qr_sampler.records.beacon import BeaconFile
from qr_sampler.records.chain import BLINDED_KINDS, NOT_JSON, ZERO_HEAD, body_of
from qr_sampler.records.entries import Entry, records_of
from qr_sampler.records.files import Continues, LedgerWriter
from qr_sampler.records.genesis import genesis_of
from qr_sampler.records.lines import LedgerLines, Line
from qr_sampler.records.process import OutsideWriter, Start
from qr_sampler.records.sidecars import PromptSidecar, Sidecar, configured_sidecars
from qr_sampler.settings import Settings

__all__ = ["DISTRIBUTIONS", "Journal"]

DISTRIBUTIONS: Final = ("qr-sampler-core", "numpy")
"""Distributions that take part in every run; hosts add theirs."""

CLOCK_INTERVAL_S: Final = 60.0
"""Interval between lines of the clocks, in seconds, while the engine runs."""


class Journal:
    """Writes records to the ledger directory, if there is one, and to the log.

    The file is named after the start time, the engine, the process and the run, so that engine
    processes never share one.

    Args:
        settings: The deployment's settings.
        sources: The sources in use, whose distributions enter the genesis record.
        engine: Name of the host engine, with its version if it has one.
        model: Name of the served model.
        engine_rank: Which of several data-parallel engines this is, counted from 0.
        distributions: Whose versions enter the genesis record, as far as they are installed.
        more_settings: What the genesis record holds beside the deployment's settings.
        host: Further facts about the engine, for the genesis record.
        outside: Whether a process of its own writes the file, if one can be started.
    """

    def __init__(
        self,
        settings: Settings,
        sources: Iterable[EntropySource],
        *,
        engine: str,
        model: str,
        engine_rank: int = 0,
        distributions: Sequence[str] = DISTRIBUTIONS,
        more_settings: Mapping[str, Any] | None = None,
        host: Mapping[str, Any] | None = None,
        outside: bool = False,
    ) -> None:
        self.run_id = uuid.uuid4().hex
        self._logger = SamplingLogger(settings.log_level)
        self._file: LedgerWriter | OutsideWriter | None = None
        self._sidecars: list[Sidecar] = []
        self._beacon = BeaconFile()
        if settings.ledger_dir is not None:
            started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            name = f"{started}-dp{engine_rank}-{os.getpid()}-{self.run_id[:8]}.jsonl"
            self._genesis = genesis_of(
                run_id=self.run_id,
                engine=engine,
                model=public_model_name(model),
                settings={**_public_settings(settings), **(more_settings or {})},
                sources=sources,
                distributions=distributions,
                host=host or {},
                seal=settings.ledger_seal,
                components=foreign_components(settings),
            )
            self._sidecars = configured_sidecars(settings, self.run_id)
            self._lines = LedgerLines(self._genesis, self._sidecars)
            self._file = self._writer_of(settings, settings.ledger_dir / name, outside=outside)
            self._file.begin()

    @property
    def keeps_prompts(self) -> bool:
        """Whether the prompts of sequences are written, too."""
        return any(isinstance(sidecar, PromptSidecar) for sidecar in self._sidecars)

    @property
    def writing_process(self) -> int | None:
        """Number of the process that writes the file; ``None`` if this one does."""
        return self._file.pid if isinstance(self._file, OutsideWriter) else None

    @property
    def lost(self) -> int:
        """Number of records that the disk has refused, or that have gone with the file."""
        return 0 if self._file is None else self._file.lost

    @property
    def refuses(self) -> bool:
        """Whether the disk has refused what was written last."""
        return self._file is not None and self._file.refuses

    def lose(self, reason: str, missing: Mapping[str, int], since_wall_ns: int = 0) -> None:
        """States in the ledger that records are missing there.

        Args:
            reason: What has become of them.
            missing: Their number by kind.
            since_wall_ns: When the first of them was missed; now if not given.
        """
        if self._file is not None:
            missing = Counter(missing) + self._lines.tell_again()
            self._file.lose(reason, missing, since_wall_ns)

    def write(self, entries: Iterable[Entry]) -> None:
        """Keeps the records of *entries*, in order, which are made only if somebody reads them.

        Without entries it still notices if the file is gone.
        """
        if self._file is None and not self._logger.enabled:
            return
        if self._logger.enabled:
            entries = list(entries)
            self._logger.log(records_of(entries))
        if self._file is not None:
            self._append(self._file, entries)

    def close(self) -> None:
        """Ends the ledger file; writing more goes on in another one."""
        if self._file is not None:
            for sidecar in self._sidecars:
                _state_lost(self._file, sidecar.kind, sidecar.end())
            self._file.end()
            self._next_clock_s = math.inf

    def _writer_of(
        self, settings: Settings, path: Path, *, outside: bool
    ) -> LedgerWriter | OutsideWriter:
        """Returns what writes the file."""
        ways: dict[str, Any] = {
            "seal": settings.ledger_seal or ZERO_HEAD,
            "max_bytes": settings.ledger_max_bytes,
            "held": settings.ledger_queue if settings.ledger_required else 0,
            "sync_s": settings.ledger_sync_ms / 1e3,
        }
        writer = LedgerWriter(path, self._beginning, blinded=BLINDED_KINDS, **ways)
        if not outside or os.name != "posix":
            return writer
        try:
            genesis = body_of("genesis", self._genesis)
        except NOT_JSON:
            # The writer says so, and goes on without.
            return writer
        start = Start(
            path=os.fsencode(path),
            genesis=genesis,
            blinded=sorted(BLINDED_KINDS),
            **ways,
        )
        return OutsideWriter(writer, start, self._begun_outside)

    def _append(self, file: LedgerWriter | OutsideWriter, entries: Iterable[Entry]) -> None:
        """Writes the lines of *entries*, and now and then one of the clocks."""
        # First: a file that is begun now introduces what its lines name.
        file.prepare()
        for sidecar in self._sidecars:
            sidecar.file.follow(file.path)
        outside = isinstance(file, OutsideWriter)
        lines = self._lines.runs_of(entries) if outside else self._lines.of(entries)
        for sidecar in self._sidecars:
            _state_lost(file, sidecar.kind, sidecar.flush())
        before = file.given_up
        if time.monotonic() >= self._next_clock_s:
            self._next_clock_s = time.monotonic() + CLOCK_INTERVAL_S
            lines.append(self._lines.clock())
        lines += self._beacon.lines(file.path)
        file.write(lines)
        if file.given_up > before:
            self._lines.tell_again()

    def _beginning(self, continues: Continues | None) -> list[Line]:
        """Returns what a file begins with."""
        if self._genesis.pid != os.getpid():
            # A forked process draws and numbers for itself.
            self._genesis = replace(self._genesis, pid=os.getpid())
            self._lines = LedgerLines(self._genesis, self._sidecars)
        self._begun_outside()
        return self._lines.begin_file(None if continues is None else asdict(continues))

    def _begun_outside(self) -> None:
        """Takes note of a file that has begun, and with it of the clocks."""
        self._lines.tell_again()
        self._next_clock_s = time.monotonic() + CLOCK_INTERVAL_S


def _state_lost(file: LedgerWriter | OutsideWriter, kind: str, lost: Mapping[str, int]) -> None:
    """States in the ledger how many pieces of a file beside it are lost, by reason."""
    for reason, count in lost.items():
        if count:
            file.lose(reason, {kind: count})


def _public_settings(settings: Settings) -> dict[str, Any]:
    # Directories are facts about the machine, not about the sampling.
    public = settings.model_dump(mode="json", exclude={"ledger_dir"})
    if settings.baseline_file is not None:
        public["baseline_file"] = settings.baseline_file.name
    return public
