# SPDX-License-Identifier: Apache-2.0
"""The journal of one study: what happened to it, in order, from the seal on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qr_sampler.errors import ConfigError
from qr_sampler_lab.experiments.files.chained_record import ChainedRecord, Entry
from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.files.locking import LOCK_TIMEOUT_S

__all__ = ["LONGEST_TEXT", "Journal", "Standing", "standing_after"]

LONGEST_TEXT: Final = 10_000
"""Most characters of a mark or a reason."""

_ANYTIME: Final = ("mark", "gap")


@dataclass(slots=True)
class Standing:
    """Where a study stands."""

    seal: str = ""
    """Digest of the seal."""
    receipt: dict[str, Any] = field(default_factory=dict)
    """``n`` and ``head`` of its line in the register."""
    order: dict[str, Any] | None = None
    """Where the order came from, once that is known."""
    begun: bool = False
    """Whether it runs or has run."""
    ended: str = ""
    """``finished``, ``aborted``, or empty while it is open."""
    reason: str = ""
    """Why it was aborted."""
    unblinded: bool = False
    """Whether the names of the arms were made known."""
    sessions_begun: int = 0
    """Number of sessions that were begun."""
    sessions_ended: int = 0
    """Number of those that ran to their end."""
    requests: Counter[str] = field(default_factory=Counter)
    """Number of requests by alias, of sessions that ended."""
    tokens: Counter[str] = field(default_factory=Counter)
    """Number of tokens by alias, likewise."""
    resumed: int = 0
    """How often it was resumed."""
    marks: int = 0
    """Number of marks."""


class Journal:
    """Appends to the journal of a study, and refuses what is out of order.

    Args:
        path: The file ``journal.jsonl`` of the study.
        timeout_s: Longest wait for other processes that append to it.
    """

    def __init__(self, path: Path, *, timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self.path = path
        self._record = ChainedRecord(path, timeout_s=timeout_s)
        self._standing = Standing()

    def create(self, seal: str, receipt: Entry) -> Entry:
        """Makes the journal of a study that has just been sealed.

        Args:
            seal: Digest of the seal, which the first line's ``prev`` is.
            receipt: The line of the register.
        """
        told = {"n": receipt.n, "head": receipt.head}
        return self._record.create("sealed", {"register": told}, seal=seal)

    def entries(self) -> list[Entry]:
        """Returns all lines.

        Raises:
            RecordError: When the chain is broken.
        """
        return list(self._record.entries())

    def standing(self) -> Standing:
        """Returns where the study stands."""
        return standing_after(self._record.entries())

    def ordered(self, method: str, **source: object) -> Entry:
        """Records where the order comes from; *source* is what anybody can derive it from."""
        return self._append("order", {"method": method, **source})

    def begun(self, **facts: object) -> Entry:
        """Records that the study begins; *facts* are whatever the engine says of itself."""
        return self._append("begun", facts)

    def resumed(self, **facts: object) -> Entry:
        """Records that an interrupted study goes on."""
        return self._append("resumed", facts)

    def session_begun(self, session: int, **facts: object) -> Entry:
        """Records that a session begins; from now on it counts."""
        return self._append("session", {"session": session, "state": "begun", **facts})

    def session_ended(
        self,
        session: int,
        *,
        requests: Mapping[str, int],
        tokens: Mapping[str, int],
        **facts: object,
    ) -> Entry:
        """Records that a session ran to its end.

        Args:
            session: Its number in the plan.
            requests: Number of its requests by alias.
            tokens: Number of emitted tokens by alias.
            facts: What else is to be said, never results.
        """
        counts = {"requests": dict(requests), "tokens": dict(tokens)}
        return self._append("session", {"session": session, "state": "ended", **counts, **facts})

    def mark(self, text: str, *, while_open: bool = False) -> Entry:
        """Records what somebody saw or did.

        Args:
            text: What that was.
            while_open: Whether a study that is over takes no mark any more.

        Raises:
            ConfigError: When the text is empty, too long or not Unicode.
            StudyError: When the study is over, and that matters.
        """
        return self._append("mark", {"text": _checked(text, "mark")}, while_open=while_open)

    def finished(self, **facts: object) -> Entry:
        """Records that the study ran to its end, by its own rule."""
        return self._append("finished", facts)

    def aborted(self, reason: str, **facts: object) -> Entry:
        """Records that the study was ended before its end.

        Raises:
            ConfigError: When the reason is empty, too long or not Unicode.
        """
        return self._append("aborted", {"reason": _checked(reason, "reason"), **facts})

    def unblinded(
        self, aliases: Mapping[str, str], heads: Mapping[str, Mapping[str, object]], **facts: object
    ) -> Entry:
        """Records which arm each alias is, behind the heads of all ledgers, for ever.

        Args:
            aliases: Alias to name of the arm.
            heads: Of every ledger file: ``lines`` and ``head``, as they stand now.
            facts: Secrets that the seal commits to, revealed.
        """
        told = {"ledgers": {name: dict(head) for name, head in heads.items()}}
        return self._append("unblinded", {**told, "aliases": dict(aliases), **facts})

    def _append(
        self, kind: str, fields: Mapping[str, object], *, while_open: bool = False
    ) -> Entry:
        def allowed(news: list[Entry], anew: bool) -> None:
            self._standing = standing_after(news, Standing() if anew else self._standing)
            if while_open:
                _refuse_ended(self._standing)
            _refuse_out_of_order(kind, fields, self._standing)

        return self._record.append(kind, fields, allowed=allowed)


def standing_after(entries: Iterable[Entry], standing: Standing | None = None) -> Standing:
    """Returns where a study stands after *entries*, lines of its journal.

    Args:
        entries: The lines.
        standing: Where it stood before them, which is updated; without one they are all.
    """
    standing = standing or Standing()
    for entry in entries:
        _take(standing, entry.kind, entry.values)
    return standing


def _take(standing: Standing, kind: str, values: Mapping[str, Any]) -> None:
    if kind == "sealed":
        standing.seal, standing.receipt = values["seal"], dict(values["register"])
    elif kind == "order":
        standing.order = dict(values)
    elif kind == "begun":
        standing.begun = True
    elif kind == "resumed":
        standing.resumed += 1
    elif kind == "session":
        _take_session(standing, values)
    elif kind in ("finished", "aborted"):
        standing.ended, standing.reason = kind, values.get("reason", "")
    elif kind == "unblinded":
        standing.unblinded = True
    elif kind == "mark":
        standing.marks += 1


def _take_session(standing: Standing, values: Mapping[str, Any]) -> None:
    if values["state"] == "begun":
        standing.sessions_begun += 1
        return
    standing.sessions_ended += 1
    standing.requests.update(values["requests"])
    standing.tokens.update(values["tokens"])


def _refuse_out_of_order(kind: str, fields: Mapping[str, object], standing: Standing) -> None:
    """Refuses a line that has no place after what the journal holds.

    Raises:
        StudyError: With what stands in its way.
    """
    if kind in _ANYTIME:
        return
    if kind == "unblinded":
        if standing.unblinded:
            raise StudyError("the study is unblinded already; that happens once")
        if not standing.ended:
            raise StudyError("the study is open; arms are named when it is finished or aborted")
        return
    _refuse_ended(standing)
    if kind in ("order", "begun") and getattr(standing, kind):
        raise StudyError(f"the journal holds a line of kind {kind!r} already")
    if kind == "begun" and standing.order is None:
        raise StudyError("the order of the arms is not known yet")
    if kind in ("session", "resumed", "finished") and not standing.begun:
        raise StudyError("the study has not begun")
    open_sessions = standing.sessions_begun - standing.sessions_ended
    if kind == "session" and fields["state"] == "ended" and not open_sessions:
        raise StudyError(f"session {fields['session']} was never begun")


def _refuse_ended(standing: Standing) -> None:
    if standing.ended:
        raise StudyError(f"the study is {standing.ended}; nothing more happens to it")


def _checked(text: str, what: str) -> str:
    """Returns *text* if it can stand in a line."""
    if not text.strip():
        raise ConfigError(f"the {what} is empty; say something")
    if len(text) > LONGEST_TEXT:
        raise ConfigError(f"the {what} has {len(text):,} characters; {LONGEST_TEXT:,} are the most")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(f"the {what} is not Unicode: {error}") from error
    return text
