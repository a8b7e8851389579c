# SPDX-License-Identifier: Apache-2.0
"""Begins, resumes and ends a sealed study."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qr_sampler.settings.env_file import pin_env_file
from qr_sampler.stop_request import StopRequest
from qr_sampler_cli.settings.catalogue import installed_groups
from qr_sampler_lab.experiments.blinding import aliases_of
from qr_sampler_lab.experiments.comparing import refuse_differences
from qr_sampler_lab.experiments.ending import enter_end, finish_study
from qr_sampler_lab.experiments.environment import engine_environment
from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.files.journal import Standing
from qr_sampler_lab.experiments.files.locking import locked_directory
from qr_sampler_lab.experiments.ordering import plan_of, settle_order
from qr_sampler_lab.experiments.plan import PlannedSession
from qr_sampler_lab.experiments.running.engines import running
from qr_sampler_lab.experiments.running.heads import ledger_heads
from qr_sampler_lab.experiments.running.runner import Assignment, SessionRunner, begun_sessions
from qr_sampler_lab.experiments.study import Study

__all__ = ["Conduct", "assignment_of", "conduct"]

logger = logging.getLogger("qr_sampler.lab")

_SECRETS: Final = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_CREDENTIALS")
"""How the names of variables end that are in no protocol."""

_OF_THE_RECORDS: Final = ("QR_LEDGER_", "QR_LOG_LEVEL")
"""Beginnings of names that change no token; those that a study needs are set for it."""


def _show_nothing(*told: object) -> None:
    """Takes what nobody wants to see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """How a study is carried out, as far as the protocol leaves that open."""

    resume: bool = False
    """Whether it goes on, rather than begins."""
    at_once: int = 32
    """Most requests that are served together; never fewer than one session."""
    engine_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of vLLM's engine."""
    round_file: Path | None = None
    """JSON of the drand round that decides the order, where there is no network."""
    tsa: str | None = None
    """Address of an authority that stamps times meanwhile."""
    drand: str | None = None
    """Address of a server of drand, whose rounds the ledgers take in."""
    deposit: str | None = None
    """Second place for what is witnessed: a directory, or a git repository."""
    verbose: bool = False
    """Whether the engine's log is shown."""
    on_progress: Callable[[int, int], object] = _show_nothing
    """Called with the numbers of requests done and planned."""
    on_session: Callable[[PlannedSession], object] = _show_nothing
    """Called with every session before it begins."""


def conduct(study: Study, how: Conduct) -> bool:
    """Carries out what is left of a study; returns whether it is finished.

    Args:
        study: A sealed study.
        how: What the protocol leaves open.

    Raises:
        StudyError: When the study is not what was sealed, is over, or is being run elsewhere.
        QRSamplerError: When the engine does not start, or fails.
    """
    with _alone(study):
        _complete_end(study)
        refuse_differences(study)
        refuse_environment(study)
        standing = _checked_standing(study, how)
        if standing.order is None:
            settle_order(study, file=how.round_file)
        return _carry_out(study, how)


def assignment_of(study: Study) -> Assignment:
    """Returns everything that the plan of a study refers to.

    Raises:
        StudyError: When its order is not settled.
    """
    aliases = aliases_of(study.protocol, study.key.alias_key)
    return Assignment(
        protocol=study.protocol,
        sessions=plan_of(study),
        arms={alias: arm for (_, arm), alias in aliases.items()},
        prompts={prompt.file: study.prompt(prompt.file) for prompt in study.protocol.prompts},
        ledgers=study.ledgers,
    )


def refuse_environment(study: Study) -> None:
    """Refuses settings of the environment that the protocol does not know of.

    Raises:
        StudyError: Naming them.
    """
    known = {
        f"{group.model.model_config.get('env_prefix', '')}{name}".upper()
        for group in installed_groups()
        for name in group.model.model_fields
    }
    stated = study.protocol.environment
    stray = sorted(
        name
        for name, value in os.environ.items()
        if value
        and name in known
        and name not in stated
        and not name.endswith(_SECRETS)
        and not name.startswith(_OF_THE_RECORDS)
    )
    if stray:
        raise StudyError(
            f"{', '.join(stray)}: set in the environment, but not in the sealed protocol; unset "
            f"{'it' if len(stray) == 1 else 'them'}, or seal another study that names them"
        )


def _checked_standing(study: Study, how: Conduct) -> Standing:
    standing = study.journal.standing()
    if standing.ended:
        raise StudyError(f"{study.directory} is {standing.ended}; nothing is left to do")
    if standing.begun and not how.resume:
        raise StudyError(
            f"{study.directory} has begun, with {standing.sessions_begun} sessions; go on with "
            "`qr-sampler experiment resume`"
        )
    if how.resume and not standing.begun:
        raise StudyError(f"{study.directory} has not begun; begin with `qr-sampler experiment run`")
    return standing


def _carry_out(study: Study, how: Conduct) -> bool:
    assignment = assignment_of(study)
    variables = {
        **engine_environment(study.protocol, study.directory),
        "QR_LEDGER_DIR": str(study.made_ledgers().resolve()),
        "QR_LEDGER_REQUIRED": "true",
        "QR_LEDGER_SEAL": study.sealed.digest,
        "QR_LEDGER_PROMPTS": "true",
    }
    with (
        _settings_of_the_environment_only(),
        _interrupted() as interrupted,
        running(
            study.model_path, variables, arguments=how.engine_arguments, verbose=how.verbose
        ) as engine,
    ):
        _begin(study, how)
        runner = SessionRunner(
            assignment,
            study.journal,
            at_once=how.at_once,
            on_progress=how.on_progress,
            on_session=how.on_session,
        )
        with _witnesses(study, how):
            finished = runner.run(engine, interrupted.is_set)
    if finished:
        finish_study(study, stopped_after=runner.stopped_after, ledgers=ledger_heads(study.ledgers))
    return finished


def _begin(study: Study, how: Conduct) -> None:
    """Records that the engine has started and the study goes on."""
    facts = {"at_once": how.at_once, "engine_arguments": dict(how.engine_arguments)}
    if not how.resume:
        study.journal.begun(**facts)
        return
    sessions = [entry.values for entry in study.journal.entries() if entry.kind == "session"]
    ended = {values["session"] for values in sessions if values["state"] == "ended"}
    study.journal.resumed(interrupted=sorted(begun_sessions(study.journal) - ended), **facts)


def _complete_end(study: Study) -> None:
    """Enters the end of a study in the register, if a crash has prevented that."""
    known = study.register.study(study.sealed.digest)
    if study.journal.standing().ended and known is not None and known.end is None:
        enter_end(study)


@contextlib.contextmanager
def _alone(study: Study) -> Iterator[None]:
    """Keeps other processes from running the same study meanwhile."""
    with locked_directory(study.made_ledgers(), timeout_s=0.0):
        yield


@contextlib.contextmanager
def _settings_of_the_environment_only() -> Iterator[None]:
    """Has no ``.env`` file read: the protocol says what is set."""
    pin_env_file(Path(os.devnull))
    try:
        yield
    finally:
        pin_env_file(None)


@contextlib.contextmanager
def _interrupted() -> Iterator[StopRequest]:
    """Yields an event that the first Ctrl-C sets; the second one acts as always."""
    event = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.getsignal(signal.SIGINT)

    def on_interrupt(number: int, frame: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)
        logger.warning("ending after this session; Ctrl-C again ends at once")

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _witnesses(study: Study, how: Conduct) -> Iterator[None]:
    """Has outside witnesses asked while the study runs, where the extra is installed."""
    if how.tsa is None and how.drand is None and how.deposit is None:
        yield
        return
    try:
        from qr_sampler_lab.anchors.anchoring import Anchoring

        anchoring = Anchoring([study.ledgers], tsa=how.tsa, drand=how.drand, deposit=how.deposit)
    except ImportError as error:
        logger.warning("no outside witness: %s; --no-anchors says so without a warning", error)
        yield
        return
    with anchoring:
        yield
