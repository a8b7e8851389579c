# SPDX-License-Identifier: Apache-2.0
"""The register of a laboratory: every study that was ever sealed there, and how it ended.

A sealed study is in it for ever. It ends as ``finished`` or ``aborted`` with a reason, or stays
visibly open.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qr_sampler_lab.experiments.files.chained_record import ChainedRecord, Entry
from qr_sampler_lab.experiments.files.errors import RecordError, StudyError
from qr_sampler_lab.experiments.files.locking import LOCK_TIMEOUT_S

__all__ = [
    "LAB_VARIABLE",
    "REGISTER_NAME",
    "Register",
    "RegisteredStudy",
    "receipt_faults",
    "register_of",
    "studies_in",
]

LAB_VARIABLE: Final = "QR_LAB_DIR"
"""Environment variable that names the directory of the laboratory."""

REGISTER_NAME: Final = "register.jsonl"

_ENDS: Final = ("finished", "aborted")


@dataclass(frozen=True, slots=True)
class RegisteredStudy:
    """What a register says of a study."""

    seal: str
    """Digest of its seal."""
    name: str
    """Its name in the protocol."""
    directory: str
    """Where it was sealed: relative to the laboratory if it was in there."""
    sealed: Entry
    """Its line."""
    end: Entry | None
    """The line that says how it ended, ``None`` while it is open."""


def register_of(study: Path) -> Register:
    """Returns the register for a study: in ``QR_LAB_DIR``, else in the directory above the study.

    Args:
        study: Directory of the study.
    """
    laboratory = os.environ.get(LAB_VARIABLE)
    directory = Path(laboratory).expanduser() if laboratory else study.resolve().parent
    return Register(directory / REGISTER_NAME)


class Register:
    """The chained file of all studies of a laboratory.

    Args:
        path: The file; made with the first study.
        timeout_s: Longest wait for other processes that append to it.
    """

    def __init__(self, path: Path, *, timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self.path = path
        self._record = ChainedRecord(path, timeout_s=timeout_s)
        self._lines: list[Entry] = []

    def entries(self) -> list[Entry]:
        """Returns all lines; none if there is no register yet.

        Raises:
            RecordError: When the chain is broken.
        """
        return list(self._record.entries()) if os.path.lexists(self.path) else []

    def seal(self, seal: str, name: str, directory: Path) -> Entry:
        """Appends a study.

        Args:
            seal: Digest of its seal.
            name: Its name.
            directory: Where it is.

        Raises:
            StudyError: When the register has that seal already.
        """
        if not os.path.lexists(self.path):
            self._begin()

        def allowed(news: list[Entry], anew: bool) -> None:
            if _one(self._lines_with(news, anew), seal) is not None:
                raise StudyError(f"the register {self.path} has this seal already: {seal}")

        fields = {"study": seal, "name": name, "directory": self._place(directory)}
        return self._record.append("sealed", fields, allowed=allowed)

    def end(self, seal: str, kind: str, reason: str, journal: Entry) -> Entry:
        """Appends how a study ended.

        Args:
            seal: Digest of its seal.
            kind: ``finished`` or ``aborted``.
            reason: Why it was aborted; empty otherwise.
            journal: The line of its journal that says the same.

        Raises:
            StudyError: When the register does not have the study, or knows its end.
        """
        if kind not in _ENDS:
            raise StudyError(f"a study ends as {' or '.join(_ENDS)}, not as {kind!r}")

        def allowed(news: list[Entry], anew: bool) -> None:
            study = _one(self._lines_with(news, anew), seal)
            if study is None:
                raise StudyError(f"the register {self.path} does not have the study {seal}")
            if study.end is not None:
                raise StudyError(f"the register {self.path} has the study as {study.end.kind}")

        told = {"n": journal.n, "head": journal.head}
        fields = {"study": seal, "reason": reason, "journal": told}
        return self._record.append(kind, fields, allowed=allowed)

    def study(self, seal: str) -> RegisteredStudy | None:
        """Returns what the register says of a study, ``None`` if it does not have it."""
        return _one(self.entries(), seal)

    def studies(self) -> list[RegisteredStudy]:
        """Returns all studies, in the order of their seals."""
        return studies_in(self.entries())

    def faults(self, seal: str, receipt: Entry | dict[str, object]) -> list[str]:
        """Returns what shows that the register is not the one that a study was sealed in.

        Args:
            seal: Digest of the seal of the study.
            receipt: ``n`` and ``head`` of its line, as its journal keeps them.
        """
        if not os.path.lexists(self.path):
            return [f"the register {self.path} is gone"]
        try:
            entries = self.entries()
        except RecordError as error:
            return [str(error)]
        return receipt_faults(entries, seal, receipt, str(self.path))

    def _lines_with(self, news: list[Entry], anew: bool) -> list[Entry]:
        self._lines = news if anew else self._lines + news
        return self._lines

    def _begin(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._record.create("register", {"version": 1})
        except RecordError:
            # Another process has been faster.
            if not os.path.lexists(self.path):
                raise

    def _place(self, directory: Path) -> str:
        here, laboratory = directory.resolve(), self.path.parent.resolve()
        inside = here.is_relative_to(laboratory)
        return here.relative_to(laboratory).as_posix() if inside else str(here)


def receipt_faults(
    entries: list[Entry], seal: str, receipt: Entry | dict[str, object], name: str
) -> list[str]:
    """Returns what is wrong with the line of a study in a register, or in an extract of one."""
    told = {"n": receipt.n, "head": receipt.head} if isinstance(receipt, Entry) else receipt
    there = next((entry for entry in entries if entry.n == told["n"]), None)
    if there is None:
        fault = f"{name} ends before n {told['n']}, where this study was: it was cut, or an older"
        return [f"{fault} one was copied back"]
    if there.head != told["head"] or there.values.get("study") != seal:
        return [f"{name} has another line than this study's at n {told['n']}: it was made anew"]
    return []


def studies_in(entries: Iterable[Entry]) -> list[RegisteredStudy]:
    """Returns the studies in the lines of a register, in the order of their seals."""
    sealed: dict[str, Entry] = {}
    ends: dict[str, Entry] = {}
    for entry in entries:
        if entry.kind == "sealed":
            sealed[entry.values["study"]] = entry
        elif entry.kind in _ENDS:
            ends[entry.values["study"]] = entry
    return [
        RegisteredStudy(seal, line.values["name"], line.values["directory"], line, ends.get(seal))
        for seal, line in sealed.items()
    ]


def _one(entries: Iterable[Entry], seal: str) -> RegisteredStudy | None:
    return next((study for study in studies_in(entries) if study.seal == seal), None)
