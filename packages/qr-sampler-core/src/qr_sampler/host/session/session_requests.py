# SPDX-License-Identifier: Apache-2.0
"""The part of a session that takes requests in."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from qr_sampler.admission.overrides import FOLLOW_KEY, EngineFields, RequestOptions, resolve_request
from qr_sampler.entropy.draw import DroppedBytes
from qr_sampler.entropy.fallback import primary_guard
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import ConfigError
from qr_sampler.host.sequence import TokenSequence
from qr_sampler.host.session.engine_facts import EngineFacts
from qr_sampler.host.session.session_records import SessionRecords
from qr_sampler.host.stop_conditions import StopConditions
from qr_sampler.records.accounting import bypass_record
from qr_sampler.records.entries import RequestFacts
from qr_sampler.settings import Settings

__all__ = ["SessionRequests"]


class SessionRequests(SessionRecords):
    """Has the sequences of requests begin, with the options that these have.

    Args:
        facts: The engine's description of itself.
        settings: The deployment's settings.
        sources: The sources by name, guarded.
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
        super().__init__(facts, settings, sources, dropped, logger)
        self.settings = settings
        self._sources = sources
        self._logger = logger

    @property
    def sources(self) -> Mapping[str, EntropySource]:
        """The sources that requests may be admitted with, by name; the configured one first."""
        return self._sources

    def check_request(
        self, arguments: Mapping[Any, Any] | None, fields: EngineFields | None = None
    ) -> None:
        """Refuses a request that could not be served. To be called before :meth:`begin`.

        :meth:`begin` raises nothing: it has the sequence of such a request end at once.

        Args:
            arguments: The request's ``qr_*`` keys, and whatever else is among its arguments.
            fields: The request's ordinary fields.

        Raises:
            ConfigError: Naming the key, its value and the remedy.
        """
        self._options(arguments, fields)

    def begin(
        self,
        arguments: Mapping[Any, Any] | None,
        stop: StopConditions,
        *,
        fields: EngineFields | None = None,
        ending_token: int | None = None,
        prompt_tokens: int | None = None,
        prompt_digest: str = "",
        logits_fields: Mapping[str, Any] | None = None,
    ) -> TokenSequence | None:
        """Returns a new sequence, or ``None`` if its request leaves its tokens to the engine.

        Args:
            arguments: The request's ``qr_*`` keys, and whatever else is among its arguments.
            stop: What ends the sequence.
            fields: The request's ordinary fields.
            ending_token: A token with which the engine ends it; ``None`` if there is none.
            prompt_tokens: Number of tokens of the prompt; ``None`` if the host does not say.
            prompt_digest: Keyed SHA-256 of their ids, hexadecimal, for the ledger.
            logits_fields: Those of the request's ordinary fields that change its logits, as
                JSON-ready values, for the ledger.
        """
        self._begin_model_digest()
        options, failure = self._resolved(arguments, fields)
        if options.left_to_engine:
            self.record([bypass_record(options)])
            return None
        if (guard := primary_guard(self._sources[options.source])) is not None:
            guard.start_up()
        # Without such a token the request continues to its length limit with an arbitrary token,
        # flagged as forced each time.
        end = 0 if ending_token is None else ending_token
        request = RequestFacts(
            prompt_tokens=prompt_tokens,
            prompt_digest=prompt_digest,
            fields=logits_fields or {},
            wall_time_ns=time.time_ns(),
        )
        return TokenSequence(options, stop, ending_token=end, request=request, failure=failure)

    def source(self, name: str) -> EntropySource:
        """Returns the source called *name*, which a request was admitted with."""
        return self._sources[name]

    def _options(
        self, arguments: Mapping[Any, Any] | None, fields: EngineFields | None
    ) -> RequestOptions:
        return resolve_request(self.settings, arguments, fields, self._sources)

    def _resolved(
        self, arguments: Mapping[Any, Any] | None, fields: EngineFields | None
    ) -> tuple[RequestOptions, str]:
        """Returns the options of a request, and why it cannot be served, if it cannot."""
        try:
            return self._options(arguments, fields), ""
        except ConfigError as error:
            # It was accepted at admission, but a component may work there and not here.
            self._logger.error("a request that was admitted cannot be served and ends: %s", error)
            return resolve_request(self.settings, {FOLLOW_KEY: 0}), str(error)
