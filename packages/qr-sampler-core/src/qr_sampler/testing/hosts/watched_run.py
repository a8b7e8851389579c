# SPDX-License-Identifier: Apache-2.0
"""One run of a host under test: what it was asked for, what it handed over, what it recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Final

from qr_sampler.entropy.source import EntropySource
from qr_sampler.records.files import ledgers_in
from qr_sampler.records.reader import read_ledger
from qr_sampler.settings import Settings
from qr_sampler.testing.hosts.driver import HostRequest, StartHost
from qr_sampler.testing.hosts.witness import WitnessSource
from qr_sampler.testing.ledger_checks import EmittedText, check_ledger, tokens_by_sequence

__all__ = ["BLOCK_BYTES", "ReaderError", "WatchedRun", "WatchedText"]

BLOCK_BYTES: Final = 16
"""Bytes that decide a token, unless its request asks for others."""


class ReaderError(Exception):
    """What a reader raises to whom a host hands a token over."""


@dataclass(slots=True, eq=False)
class WatchedText:
    """One text as its reader sees it."""

    request: HostRequest
    """What was asked for."""
    handed_over: list[int] = field(default_factory=list)
    """The tokens that the reader was given."""
    times_ns: list[int] = field(default_factory=list)
    """When that was, by ``time.monotonic_ns()``."""
    returned: list[int] | None = None
    """The tokens that the host returned in the end; ``None`` if an error came before."""

    @property
    def key(self) -> str:
        """Names its request in the records."""
        return str(self.request.options["qr_request_key"])

    @property
    def whole(self) -> bool:
        """Whether it went on until it had ended by itself."""
        return self.returned is not None and self.request.abort_after is None

    def emitted(self) -> EmittedText:
        """Returns what was emitted, for :func:`~qr_sampler.testing.check_ledger`."""
        return EmittedText(
            request_key=self.key,
            tokens=tuple(self.handed_over),
            trial=_label(self.request.options.get("qr_trial")),
            condition=_label(self.request.options.get("qr_condition")),
            settled=self.whole,
        )


class WatchedRun:
    """Starts a host with sources that keep their own account, and reads its ledger when it is over.

    Args:
        start: Starts the host.
        folder: Where its ledger goes.
        sources: Sources by name, the configured one first; one witness if not given.
        **settings: Further settings of the deployment.
    """

    def __init__(
        self,
        start: StartHost,
        folder: Path,
        sources: Mapping[str, EntropySource] | None = None,
        **settings: Any,
    ) -> None:
        self.witness = WitnessSource()
        """The source, unless others were given."""
        self.folder = folder
        self.texts: list[WatchedText] = []
        """All texts that were asked for."""
        given = {"witness": self.witness} if sources is None else sources
        loaded = {
            "entropy_source_type": next(iter(given)),
            "fallback_mode": "error",
            "sample_count": BLOCK_BYTES,
            "max_ks_distance": 1.0,
            "ledger_dir": folder,
            "ledger_model_digest": False,
            "log_level": "none",
            **settings,
        }
        self.driver = start(Settings.load(**loaded), given)
        self._ended = False
        self._lines: list[dict[str, Any]] | None = None

    def generate(
        self,
        *requests: HostRequest,
        raise_at: int = 0,
        error: BaseException | None = None,
        on_first: Callable[[], object] | None = None,
    ) -> list[WatchedText]:
        """Has the host generate *requests* as one batch, each under a name of its own.

        Args:
            *requests: What to ask for.
            raise_at: Number of the token, over all texts and from 1, whose reader raises *error*.
            error: What it raises.
            on_first: Called when the first token is handed over.
        """
        texts = [self._named(request) for request in requests]
        handed = count(1)

        def hand_over(index: int, token_id: int) -> None:
            texts[index].handed_over.append(int(token_id))
            texts[index].times_ns.append(time.monotonic_ns())
            number = next(handed)
            if number == 1 and on_first is not None:
                on_first()
            if number == raise_at and error is not None:
                raise error

        returned = self.driver.generate([text.request for text in texts], hand_over)
        for text, tokens in zip(texts, returned, strict=True):
            text.returned = [int(token_id) for token_id in tokens]
        return texts

    def end(self) -> None:
        """Ends the run, once."""
        if not self._ended:
            self._ended = True
            self.driver.close()

    def lines(self) -> list[dict[str, Any]]:
        """Ends the run and returns the lines of its ledger, joined."""
        self.end()
        if self._lines is None:
            self._lines = [line for file in self.files() for line in read_ledger(file)]
        return self._lines

    def files(self) -> list[Path]:
        """Returns the files of its ledger."""
        return list(ledgers_in(self.folder))

    def kind(self, *kinds: str) -> list[dict[str, Any]]:
        """Returns the lines of *kinds*, in order."""
        return [line for line in self.lines() if line["kind"] in kinds]

    def records(self, text: WatchedText) -> list[dict[str, Any]]:
        """Returns the records of the tokens of *text* that were or may have been emitted."""
        sequences = [
            own
            for own in tokens_by_sequence(self.lines()).values()
            if own[0]["request_key"] == text.key
        ]
        assert len(sequences) <= 1, f"{text.key} has {len(sequences)} sequences instead of one"
        return sequences[0] if sequences else []

    def check(self, *, bytes_drawn: int | None = None) -> None:
        """Holds the ledger and what was returned against the texts and the account of the source.

        Args:
            bytes_drawn: How many bytes the sources have delivered; that of the witness if not
                given.
        """
        for text in self.texts:
            assert text.returned in (None, text.handed_over), (
                f"{text.key}: the host returns {text.returned}, handed over {text.handed_over}"
            )
        check_ledger(
            self.lines(),
            [text.emitted() for text in self.texts],
            bytes_drawn=self.witness.bytes_drawn if bytes_drawn is None else bytes_drawn,
        )

    def _named(self, request: HostRequest) -> WatchedText:
        key = f"request {len(self.texts)}"
        named = replace(request, options={"qr_request_key": key, **request.options})
        text = WatchedText(named)
        self.texts.append(text)
        return text


def _label(value: object) -> str | None:
    return None if value is None else str(value)
