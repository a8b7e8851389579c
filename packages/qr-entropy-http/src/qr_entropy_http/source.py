# SPDX-License-Identifier: Apache-2.0
"""The entropy source that asks a service over HTTP for every draw."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from qr_entropy_http.decoding import UnfitAnswerError, bytes_of, largest_body
from qr_entropy_http.device_notes import DEVICE_NOTES
from qr_entropy_http.exchange import (
    Answer,
    Deadline,
    DeadlineLapsedError,
    ExchangeError,
    exchange,
)
from qr_entropy_http.exchange.refusal import refusal_of
from qr_entropy_http.presets import preset_digest
from qr_entropy_http.quota import Quota, QuotaError, QuotaStoreError, Spending
from qr_entropy_http.quota.store import QuotaStore
from qr_entropy_http.service import Service, service_of
from qr_entropy_http.settings import HttpOptions, HttpSettings, state_folder
from qr_sampler.entropy import EntropyDraw, EntropySource, JitClass, SourceLimits, SourceStatus
from qr_sampler.entropy.device_notes import DeviceNote
from qr_sampler.errors import ConfigError, EntropyUnavailableError
from qr_sampler.settings.recorded import recorded_values

__all__ = ["HttpSource"]

_NS_PER_MS: Final = 1_000_000
_UNTRIED: Final = SourceStatus(available=True, reason="not contacted yet")
_WORKING: Final = SourceStatus(available=True)


class _Access(NamedTuple):
    """A service, and what may be spent of it."""

    service: Service
    quota: Quota


class HttpSource(EntropySource):
    """Fetches bytes from a service when they are drawn.

    Every request has a connection of its own, which is opened after the draw has begun and closed
    after the answer: no answer can be older than its draw, unless the service itself keeps a store.
    A draw larger than the largest request is split into several, which share one time limit. A
    draw that would exceed a quota is refused before anything is asked for. When a service asks for
    patience, or does not accept the key, it is left alone until that is over.

    Nothing of the environment changes the way there: proxies that variables name are not used.

    Args:
        preset: Name of the service.
        options: The other fields of :class:`~qr_entropy_http.settings.HttpOptions`.

    Raises:
        ConfigError: When an argument is malformed, or a file that it names is.
    """

    settings_model = HttpSettings
    jit_class = JitClass.REMOTE
    conditioning = "unknown"
    device_notes: ClassVar[tuple[DeviceNote, ...]] = DEVICE_NOTES

    def __init__(self, preset: str = "", **options: Any) -> None:
        self._options = HttpOptions.checked(preset=preset, **options)
        # Replaced as a whole, when the key is renewed: threads may share the source.
        self._access = self._access_to(service_of(self._options))
        self.conditioning = self._service.preset.conditioning
        # Replaced as a whole, too.
        self._rest: tuple[float, str] = (-math.inf, "")
        self._key_is_refused = False
        self._status = _UNTRIED

    @classmethod
    def from_environment(cls) -> HttpSource:
        """Returns a source configured from ``QR_HTTP_*`` and the ``.env`` file.

        Raises:
            ConfigError: When a variable is malformed, or a file that it names is.
        """
        return cls(**HttpSettings.load().model_dump())

    @property
    def name(self) -> str:
        """``http``."""
        return "http"

    @property
    def limits(self) -> SourceLimits:
        """The largest request, beyond which draws are split, and the quotas."""
        return self._service.limits

    @property
    def secrets(self) -> tuple[str, ...]:
        """The API key, which a service may repeat."""
        return self._service.secrets

    @property
    def recorded_settings(self) -> Mapping[str, object]:
        """The options, and what they have come to; the key is in none of them."""
        preset = self._service.preset
        return {
            **recorded_values(self._options),
            "service": preset.title,
            "url": self._service.url,
            "preset_name": preset.name,
            "preset_sha256": preset_digest(preset),
            "pooled": preset.pooled,
            **{allowance.name: allowance.limit for allowance in self._service.allowances},
        }

    def get_random_bytes(self, n: int) -> bytes:
        """Returns exactly *n* bytes that the service sent on this request.

        Raises:
            EntropyUnavailableError: When the service does not deliver exactly that.
            ValueError: When *n* is negative.
        """
        return self.draw(n).data

    def draw(self, n: int) -> EntropyDraw:
        """Returns *n* bytes. Those that whole numbers bring beyond them count as dropped.

        Raises:
            EntropyUnavailableError: When the service does not deliver exactly that in time.
            ValueError: When *n* is negative.
        """
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        requested_ns = time.monotonic_ns()
        sizes = self._service.sizes(n)
        data = self._fetched(sizes, requested_ns) if sizes else b""
        return EntropyDraw(
            data=data[:n],
            source=self.name,
            origin=self.origin,
            requested_ns=requested_ns,
            received_ns=time.monotonic_ns(),
            wall_time_ns=time.time_ns(),
            requests=len(sizes),
            dropped_bytes=len(data) - n,
        )

    def status(self) -> SourceStatus:
        """Returns how the latest draw ended, or that the service is left alone, asking nobody."""
        until_s, reason = self._rest
        if time.monotonic() < until_s:
            return SourceStatus(available=False, reason=reason)
        return self._status

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._service.preset.name!r}, {self._service.url!r})"

    @property
    def _service(self) -> Service:
        return self._access.service

    def _access_to(self, service: Service) -> _Access:
        # Where nothing is limited, nothing is kept, and no folder has to be there.
        folder = state_folder(self._options) if service.allowances else Path()
        store = QuotaStore(folder / f"{service.preset.name}-{service.account}.json")
        return _Access(service, Quota(service.allowances, store))

    def _fetched(self, sizes: list[int], requested_ns: int) -> bytes:
        """Returns the answers to requests of so many bytes, one after the other.

        Raises:
            EntropyUnavailableError: When there is not every one of them.
        """
        self._refuse_while_resting()
        self._read_key_again()
        # One throughout: another thread may renew the key meanwhile.
        service, quota = self._access
        deadline = Deadline(requested_ns + round(self._options.timeout_ms * _NS_PER_MS))
        spending = self._granted(quota, sizes, deadline)
        pieces: list[bytes] = []
        try:
            for size in sizes:
                pieces += [self._asked(service, size, deadline)]
        except EntropyUnavailableError as error:
            error.dropped_bytes += sum(map(len, pieces))
            _return_unspent(quota, sizes[len(pieces) + 1 :], spending, deadline)
            raise
        self._status = _WORKING
        return b"".join(pieces)

    def _granted(self, quota: Quota, sizes: list[int], deadline: Deadline) -> Spending:
        try:
            return quota.spend(len(sizes), sum(sizes), deadline)
        except QuotaError as error:
            raise self._failed(str(error), retry_after_s=error.wait_s) from None
        except QuotaStoreError as error:
            raise self._failed(str(error)) from None
        except DeadlineLapsedError:
            reason = "others have held the file of what was spent for too long; try again"
            raise self._failed(reason) from None

    def _asked(self, service: Service, size: int, deadline: Deadline) -> bytes:
        """Returns the *size* bytes that one request has brought."""
        rule = service.preset.answer
        try:
            answer = exchange(
                service.request(size), service.tls, deadline, largest_body(rule, size)
            )
        except ExchangeError as error:
            # Of other answers nobody knows how many random bytes a part of them has.
            raw_bytes = error.received_bytes if rule.format == "raw" else 0
            raise self._failed(service.told(error.reason), dropped_bytes=raw_bytes) from None
        try:
            # First of all: numbers may have in them by chance what a preset tells errors by.
            return bytes_of(answer, rule, size)
        except UnfitAnswerError as error:
            raise self._unfit(service, answer, error) from None

    def _unfit(
        self, service: Service, answer: Answer, error: UnfitAnswerError
    ) -> EntropyUnavailableError:
        refusal = refusal_of(answer, service.preset, service.secrets, has_key=bool(service.key))
        if refusal is None:
            reason = service.told(f"the answer was dropped: {error}")
            return self._failed(reason, dropped_bytes=error.decoded_bytes)
        reason = service.told(refusal.reason)
        if refusal.pause_s is not None:
            until_s = time.monotonic() + refusal.pause_s
            if until_s > self._rest[0]:
                self._rest = (until_s, reason)
        self._key_is_refused |= refusal.by_key
        return self._failed(reason, retry_after_s=refusal.pause_s)

    def _refuse_while_resting(self) -> None:
        until_s, reason = self._rest
        left_s = until_s - time.monotonic()
        if left_s > 0.0:
            raise EntropyUnavailableError(
                self.name,
                f"{reason}; left alone for {math.ceil(left_s)} s more",
                retry_after_s=left_s,
            )

    def _read_key_again(self) -> None:
        """Takes the key that the file has now, if the one before was not accepted."""
        if not self._key_is_refused:
            return
        service = self._service
        try:
            self._access = self._access_to(service.renewed(self._options))
        except ConfigError as error:
            raise self._failed(service.told(str(error))) from None
        self._key_is_refused = False

    def _failed(
        self, reason: str, *, dropped_bytes: int = 0, retry_after_s: float | None = None
    ) -> EntropyUnavailableError:
        self._status = SourceStatus(available=False, reason=reason)
        return EntropyUnavailableError(
            self.name, reason, dropped_bytes=dropped_bytes, retry_after_s=retry_after_s
        )


def _return_unspent(quota: Quota, sizes: list[int], spending: Spending, deadline: Deadline) -> None:
    # What cannot be noted stays spent: too little is asked for then, never too much.
    with suppress(QuotaStoreError, DeadlineLapsedError):
        quota.take_back(spending, len(sizes), sum(sizes), deadline)
