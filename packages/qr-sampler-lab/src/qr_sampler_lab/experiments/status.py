# SPDX-License-Identifier: Apache-2.0
"""Where a study stands, in counts under aliases, and whether its files are whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from qr_sampler.errors import QRSamplerError
from qr_sampler_lab.experiments.comparing import differences
from qr_sampler_lab.experiments.files.errors import RecordError
from qr_sampler_lab.experiments.files.journal import Journal, Standing
from qr_sampler_lab.experiments.files.register import Register, RegisteredStudy
from qr_sampler_lab.experiments.study import Study

__all__ = ["StudyStatus", "faults_of_laboratory", "status_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyStatus:
    """Where a study stands. Results are no part of it."""

    name: str
    """Its name."""
    state: str
    """``draft``, ``sealed``, ``running``, ``finished`` or ``aborted``."""
    standing: Standing | None = None
    """What its journal says; ``None`` for a draft, and for a broken journal."""
    sessions: int = 0
    """Number of sessions that are planned."""
    witness: bool = False
    """Whether an outside witness proves the seal to be no older than it says."""
    faults: list[str] = field(default_factory=list)
    """What is not as it was sealed or registered."""
    studies: list[RegisteredStudy] = field(default_factory=list)
    """All studies of the register."""


def status_of(study: Study, *, model: bool = False) -> StudyStatus:
    """Returns where a study stands.

    Args:
        study: The study.
        model: Whether to compare the files of the model, too.

    Raises:
        ConfigError: When a draft has no valid protocol.
    """
    if not study.is_sealed:
        return StudyStatus(name=study.protocol.name, state="draft", faults=_lost(study))
    faults = []
    standing, witness = None, False
    name, sessions = study.directory.name, 0
    try:
        seal = study.sealed.seal
        name, witness = seal.name, seal.witness is not None
        sessions = seal.sealed_protocol.sessions
        standing = study.journal.standing()
        faults += differences(study, model=model)
        faults += study.register.faults(standing.seal, standing.receipt)
        faults += _of_end(study.register, standing)
    except QRSamplerError as error:
        faults.append(str(error))
    studies, lab_faults = _laboratory(study)
    return StudyStatus(
        name=name,
        state=_state(standing),
        standing=standing,
        sessions=sessions,
        witness=witness,
        faults=list(dict.fromkeys([*faults, *lab_faults])),
        studies=studies,
    )


def faults_of_laboratory(register: Register) -> list[str]:
    """Returns what is wrong with the studies of a register: gone, or not the ones that it has.

    Also looks at the directories beside the register: a journal there whose study is not in it
    shows that the register was replaced by an older one.
    """
    try:
        studies = register.studies()
    except RecordError as error:
        return [str(error)]
    laboratory = register.path.parent
    faults = []
    for study in studies:
        journal = Journal(laboratory / study.directory / "journal.jsonl")
        faults += _faults_of_registered(study, journal)
    known = {(laboratory / study.directory).resolve() for study in studies}
    for path in sorted(laboratory.glob("*/journal.jsonl")):
        if path.parent.resolve() not in known:
            faults.append(f"{path.parent} is sealed, and the register {register.path} lacks it")
    return faults


def _faults_of_registered(study: RegisteredStudy, journal: Journal) -> list[str]:
    if not journal.path.exists():
        state = study.end.kind if study.end else "open"
        return [f"the study {study.name} ({state}) is not at {journal.path.parent} any more"]
    try:
        standing = journal.standing()
    except RecordError as error:
        return [str(error)]
    if standing.seal != study.seal:
        return [f"{journal.path.parent} is not the study {study.name} that the register has"]
    if study.end is not None and standing.ended != study.end.kind:
        told = f"the register has {study.name} as {study.end.kind}, and its journal as"
        return [f"{told} {standing.ended or 'open'}: lines of the journal are missing"]
    return []


def _laboratory(study: Study) -> tuple[list[RegisteredStudy], list[str]]:
    register = study.register
    faults = faults_of_laboratory(register)
    try:
        return register.studies(), faults
    except RecordError:
        return [], faults


def _of_end(register: Register, standing: Standing) -> list[str]:
    """Returns whether journal and register say the same of how the study ended."""
    known = register.study(standing.seal)
    if known is None or (known.end.kind if known.end else "") == standing.ended:
        return []
    if known.end is None:
        told = f"the journal says {standing.ended}, and the register does not know it yet"
        return [f"{told}; `qr-sampler experiment status --repair` enters it"]
    return [f"the register says {known.end.kind}, and the journal {standing.ended or 'open'}"]


def _state(standing: Standing | None) -> str:
    if standing is None:
        return "broken"
    return standing.ended or ("running" if standing.begun else "sealed")


def _lost(study: Study) -> list[str]:
    """Returns what shows that a study without seal had one."""
    left: list[Path] = [path for path in (study.seal_path, study.journal.path) if path.exists()]
    faults = [f"{path} is there, and not what belongs to it" for path in left]
    try:
        place = study.directory.resolve()
        laboratory = study.register.path.parent
        faults += [
            f"the register has the study {known.name} here, sealed as {known.seal}"
            for known in study.register.studies()
            if (laboratory / known.directory).resolve() == place
        ]
    except RecordError as error:
        faults.append(str(error))
    return faults
