# SPDX-License-Identifier: Apache-2.0
"""The half of a session that keeps what has been decided."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from weakref import finalize

from qr_sampler.entropy.draw import DroppedBytes
from qr_sampler.entropy.source import EntropySource
from qr_sampler.host.handover import Handover
from qr_sampler.host.journal import Journal
from qr_sampler.host.sequence import TokenSequence
from qr_sampler.host.session.engine_facts import EngineFacts
from qr_sampler.host.session.model_digest import ModelDigest
from qr_sampler.host.session.waiting_prompts import WaitingPrompts
from qr_sampler.host.status import EngineStatus
from qr_sampler.records.entries import Entry
from qr_sampler.settings import Settings

__all__ = ["SessionRecords"]


class SessionRecords:
    """The records, the prompts and the status of one engine.

    Args:
        facts: The engine's description of itself.
        settings: The deployment's settings.
        sources: The sources by name.
        dropped: Bytes that they have dropped, in order; emptied.
        logger: Where failures are reported.
    """

    def __init__(
        self,
        facts: EngineFacts,
        settings: Settings,
        sources: Mapping[str, EntropySource],
        dropped: deque[DroppedBytes],
        logger: logging.Logger,
    ) -> None:
        self._journal = Journal(
            settings,
            sources.values(),
            engine=facts.engine,
            model=facts.model,
            engine_rank=facts.rank,
            distributions=facts.distributions,
            more_settings=facts.more_settings,
            host=facts.host,
            outside=facts.busy and settings.ledger_process,
        )
        self._prompts = WaitingPrompts() if self._journal.keeps_prompts else None
        self._status = EngineStatus(facts.described(settings, self.run_id), sources)
        self._handover = Handover(
            self._journal,
            self._status,
            dropped,
            capacity=settings.ledger_queue,
            required=settings.ledger_required,
        )
        self._model: ModelDigest | None = None
        wanted = settings.ledger_dir is not None and settings.ledger_model_digest
        if wanted and facts.model_files is not None:
            self._model = ModelDigest(facts.model, facts.model_files, self._handover.put, logger)
        # The thread that collects garbage may hold a lock, so this only leaves a note.
        finalize(self, _abandon, self._handover, self._model).atexit = False

    @property
    def run_id(self) -> str:
        """Names the run in its ledger and in commitments to sources."""
        return self._journal.run_id

    @property
    def writing_process(self) -> int | None:
        """Number of the process that writes the ledger; ``None`` if this one does."""
        return self._journal.writing_process

    @property
    def keeps_prompts(self) -> bool:
        """Whether the operator wants prompts written, so that :meth:`keep_prompt` makes sense."""
        return self._prompts is not None

    def keep_prompt(self, sequence: TokenSequence, token_ids: Sequence[int]) -> None:
        """Has the ids of a prompt written beside the ledger, if the operator wants that.

        Args:
            sequence: The sequence that follows it, before its first token. For one whose prompt is
                known already this does nothing.
            token_ids: The ids, which must not change any more. A NumPy array is welcome.
        """
        if self._prompts is not None:
            self._prompts.keep(sequence.request.prompt, token_ids)

    def record(self, entries: Iterable[Entry]) -> None:
        """Takes *entries*, and what sources have dropped; another thread writes them soon."""
        self._handover.put(entries)

    def write_soon(self) -> None:
        """Has what :meth:`record` has taken written now; waits for nothing."""
        self._handover.nudge()

    def write(self) -> None:
        """Waits until what :meth:`record` has taken is written, but not for ever.

        May be called from any thread. No step needs it.
        """
        self._handover.flush()

    def status(self) -> dict[str, Any]:
        """Returns the status of the engine, as JSON-ready values that anybody may read."""
        self._handover.count()
        return self._status.as_dict(records_lost=self._handover.lost)

    def publish(self) -> None:
        """Publishes the status of the engine; hosts that are monitored override this."""

    def close(self) -> None:
        """Ends the ledger after the records of bytes that sources have dropped."""
        if self._model is not None:
            self._model.stop()
        self._handover.close()

    def _begin_model_digest(self) -> None:
        """Has the model's files hashed, if the operator wants that and it was not done before.

        Not earlier than there is a request: while the engine starts, it reads these files itself.
        """
        if self._model is not None:
            self._model.begin()


def _abandon(handover: Handover, model: ModelDigest | None) -> None:
    """Has the ledger ended by its own thread."""
    if model is not None:
        model.give_up()
    handover.abandon()
