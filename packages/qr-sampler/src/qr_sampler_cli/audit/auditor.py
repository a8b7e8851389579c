# SPDX-License-Identifier: Apache-2.0
"""The audit of one run: every line goes to the rungs that it concerns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qr_sampler_cli.audit.files import LedgerFile
from qr_sampler_cli.audit.findings import MOST_LISTED, Places, Rung, ladder
from qr_sampler_cli.audit.reading.decoding import Decoded, decode
from qr_sampler_cli.audit.reading.lines import raw_lines
from qr_sampler_cli.audit.reading.version1 import ENTRY_KINDS, Version1
from qr_sampler_cli.audit.rederivation.rung import ModelUnderAudit
from qr_sampler_cli.audit.run_records import RunRecords
from qr_sampler_cli.audit.rungs.chain import NO_LINE, FileChain, is_torn
from qr_sampler_cli.audit.rungs.emitted import ReceivedTokens
from qr_sampler_cli.audit.rungs.public_keys import PublicKeys
from qr_sampler_cli.audit.rungs.witnesses import Evidence
from qr_sampler_cli.audit.schema.lines import KINDS

__all__ = ["AuditedRun", "audit_runs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedRun:
    """What the audit of a run has found."""

    run_id: str
    """Name of the run, empty if nothing says it."""
    version: int
    """Layout of its lines."""
    files: tuple[str, ...]
    """Its files."""
    lines: int
    """Number of lines that were looked at."""
    tokens: int
    """Number of tokens among them."""
    head: str
    """Head of the last file: what an anchor would have to witness. Empty in version 1."""
    rungs: tuple[Rung, ...]
    """The rungs, from the lowest."""

    @property
    def fails(self) -> bool:
        """Whether a rung fails."""
        return any(rung.failed for rung in self.rungs)


def audit_runs(
    ledgers: Iterable[Sequence[LedgerFile]],
    *,
    received: ReceivedTokens | None = None,
    keys: PublicKeys | None = None,
    evidence: Evidence | None = None,
    under_audit: ModelUnderAudit | None = None,
) -> list[AuditedRun]:
    """Returns what the records of every run show.

    Args:
        ledgers: The files of every run, in order.
        received: What clients have received of all of them, if that is known.
        keys: The keys of the devices, if they are known.
        evidence: These and everything else that ledgers are compared with.
        under_audit: The model that tokens are derived from again, if there is one.

    Raises:
        NotALedgerError: When a file cannot be read.
    """
    runs = []
    for files in ledgers:
        auditor = _Auditor(received, evidence or Evidence(keys), under_audit)
        for file in files:
            auditor.read(file)
        runs.append(auditor.result(files))
    if received is not None and runs:
        received.finish(runs[-1].rungs[1])
    return runs


class _Auditor:
    def __init__(
        self,
        received: ReceivedTokens | None,
        evidence: Evidence,
        under_audit: ModelUnderAudit | None,
    ) -> None:
        self._places = Places()
        self._rungs = ladder(self._places)
        self._whole = self._rungs[0]
        self._records = RunRecords(self._rungs, received, evidence, under_audit)
        self._unknown: Counter[str] = Counter()
        self._chain: FileChain | None = None
        self._file: Path | None = None

    def read(self, file: LedgerFile) -> None:
        """Audits the next file of the run."""
        before, before_name = self._chain, self._file
        self._file = file.path
        self._places.begin(str(file.path))
        self._records.begin_file(file.path, before, before_name)
        self._chain = FileChain(self._whole, file.path.name)
        if file.path.is_symlink():
            self._whole.note(f"{file.path} is a symbolic link to {file.path.resolve()}")
        if file.version == 1:
            self._read_version1(file.path)
        else:
            self._read(file.path, self._chain)
            self._end(self._chain)

    def _read(self, path: Path, chain: FileChain) -> None:
        """Reads one line ahead, since only the line after it tells whether a line is torn."""
        waiting: Decoded | None = None
        for raw in raw_lines(path):
            if not raw.whole:
                self._whole.cannot_say(
                    "the bytes after the last newline: the file grows, or a write was cut short"
                )
                break
            line = decode(raw)
            if waiting is not None:
                self._places.last += 1
                if is_torn(waiting, line):
                    chain.torn()
                else:
                    self._take(waiting, chain)
            waiting = line
        if waiting is not None:
            self._places.last += 1
            self._take(waiting, chain)

    def _take(self, line: Decoded, chain: FileChain) -> None:
        place = self._places.last
        chain.follow(line, place)
        self._records.anchors.line(chain.lines - 1, line, place)
        if line.record is not None and not line.fault:
            if line.redacted is not None:
                self._records.redacted(place)
            self._records.take(line.record, place)
        elif line.counted_as not in KINDS and line.is_readable and not line.fault:
            self._keep_unknown(line.counted_as)
        else:
            self._cannot_read(place)

    def _keep_unknown(self, kind: str) -> None:
        name = kind[:40]
        if name not in self._unknown and len(self._unknown) >= MOST_LISTED:
            name = "(others)"
        self._unknown[name] += 1

    def _cannot_read(self, place: int) -> None:
        """Says on the rungs that need what lines say that a line does not say it."""
        for rung in self._rungs[1:4]:
            rung.cannot_say("what is in lines that are no records", place)

    def _end(self, chain: FileChain) -> None:
        if chain.redacted:
            self._whole.note(
                f"{chain.redacted:,} lines are redacted: the chain holds the digests of their "
                "originals, and what is left of their fields is the publisher's word"
            )
            self._whole.cannot_say(
                "whether the lines before a redacted one are the originals: only whoever has its "
                "original can tell",
                count=chain.redacted,
            )
        if chain.closed is None:
            last = self._places.name(self._places.last)
            self._whole.cannot_say(f"whether lines are missing at the end: {last} is no close")

    def _read_version1(self, path: Path) -> None:
        self._whole.cannot_say("whether lines were changed or removed: version 1 has no chain")
        version1 = Version1()
        for raw in raw_lines(path):
            if not raw.whole:
                self._whole.cannot_say(
                    "the bytes after the last newline: the file grows, or a write was cut short"
                )
                break
            self._places.last += 1
            kind, records, fault = version1.decode(raw)
            if fault:
                self._whole.fail(self._places.last, fault)
                self._cannot_read(self._places.last)
            elif kind not in ENTRY_KINDS:
                self._keep_unknown(kind)
            for record in () if fault else records:
                self._records.take(record, self._places.last)

    def result(self, files: Sequence[LedgerFile]) -> AuditedRun:
        """Returns what was found."""
        chain = self._chain
        self._records.finish(chain)
        for kind, count in sorted(self._unknown.items()):
            self._whole.note(f"{count} lines of the unknown kind {kind!r} are kept, not judged")
        return AuditedRun(
            run_id=self._records.run_id,
            version=files[0].version,
            files=tuple(str(file.path) for file in files),
            lines=self._places.last,
            tokens=self._records.tokens,
            head="" if chain is None or chain.head == NO_LINE else chain.head,
            rungs=tuple(self._rungs),
        )
