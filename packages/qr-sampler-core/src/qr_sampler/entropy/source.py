# SPDX-License-Identifier: Apache-2.0
"""The contract that every entropy source fulfils."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qr_sampler.arrays import FloatArray
from qr_sampler.entropy.device_notes import DeviceNote
from qr_sampler.entropy.draw import EntropyDraw, JitClass, Origin, SourceLimits, SourceStatus
from qr_sampler.entropy.row_context import RowContext
from qr_sampler.errors import EntropyUnavailableError

if TYPE_CHECKING:
    from qr_sampler.settings import EnvironmentSettings

__all__ = ["CONTRACT_VERSION", "EntropySource"]

CONTRACT_VERSION = 1
"""Version of this contract; raised when an existing source would have to change."""

_MANTISSA_SHIFT = 11
_MANTISSA_ULP = 2.0**-53
_UNLIMITED = SourceLimits()


class EntropySource(ABC):
    """A supplier of random bytes that are generated on request.

    Must be overridden: :attr:`name` and :meth:`get_random_bytes`. Worth overriding when there is
    something to say: :meth:`from_environment`, :attr:`is_available`, :meth:`status`, :meth:`probe`,
    :attr:`limits`, :attr:`secrets`, :attr:`recorded_settings`, :meth:`draw`, :meth:`draw_rows`,
    :meth:`close`, :attr:`jit_class` and :attr:`conditioning`.

    Just in time: construction and import draw nothing, nothing is buffered between calls, and bytes
    left over from a read are dropped. A late answer never serves a later call.

    Threads: an instance may be called from several threads at once; two calls never share bytes.
    Processes: an instance may be constructed before a fork, so sockets and devices are opened on
    first use.

    Errors: a source that cannot deliver raises
    :class:`~qr_sampler.errors.EntropyUnavailableError`, which is what triggers a fallback. Any
    other exception is a defect: it is logged, and the engine continues as if the source were
    unavailable.
    """

    jit_class: JitClass = JitClass.REMOTE
    """How far the just-in-time claim goes."""

    blocks: ClassVar[bool] = True
    """Whether a draw can take longer than the source itself allows. Such a source is called from a
    thread of its own, so that it cannot hold up those who wait for it. So is every source that is
    not part of this project, whatever this says."""

    commits: bool = False
    """Whether :meth:`committed_draw` passes the commitment on."""

    serves_rows: bool = False
    """Whether :meth:`draw_rows` hands each row a block of its own. Steps then call that instead of
    :meth:`draw` and :meth:`committed_draw`."""

    integrates: bool = False
    """Whether draws are uniform numbers of eight bytes that the far side has made of its bytes, for
    the amplifier ``server``."""

    conditioning: str = "unknown"
    """What was done to the raw bits, for example ``"none"`` or ``"sha256"``."""

    min_entropy_per_byte: float | None = None
    """Min-entropy of a byte in bits that an assessment of the source has found, which its health
    tests then assume; ``None`` where there is none. 0 says that the bytes are chosen and there is
    nothing to test, as in a constant control."""

    has_fallback: bool = True
    """Whether another source takes over when this one does not deliver, as the failure policy of
    the deployment says. Where none does, a draw that is given up ends requests, so that waiting for
    it longer is worthwhile."""

    native_block_bytes: ClassVar[int | None] = None
    """Number of bytes that the device makes at a time, so that a block of a multiple of it wastes
    nothing; ``None`` if any number is as good as another, or nobody knows."""

    device_notes: ClassVar[tuple[DeviceNote, ...]] = ()
    """What is known of the devices that the source can read, for the table of devices."""

    settings_model: ClassVar[type[EnvironmentSettings] | None] = None
    """The model of its own settings, for ``qr-sampler settings`` and ``doctor``; ``None`` for a
    source without any."""

    origin: Origin = Origin()
    """Set by the registry to the distribution that the source was loaded from."""

    @classmethod
    def from_environment(cls) -> EntropySource:
        """Returns a source configured from ``QR_*`` environment variables and the ``.env`` file.

        Raises:
            ConfigError: When a setting of this source is malformed.
        """
        return cls()

    @property
    @abstractmethod
    def name(self) -> str:
        """The name under which the source is configured and recorded."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must stay secret, for example an API key.

        They are masked in everything that the source says: a device or a server may repeat them.
        """
        return ()

    @property
    def recorded_settings(self) -> Mapping[str, object]:
        """The settings that are in use, for the first line of a ledger; never a secret one."""
        return {}

    @property
    def is_available(self) -> bool:
        """Whether the next draw is expected to succeed; never touches the device."""
        return self.status().available

    @property
    def limits(self) -> SourceLimits:
        """What the source accepts in one request and over time."""
        return _UNLIMITED

    @abstractmethod
    def get_random_bytes(self, n: int) -> bytes:
        """Returns exactly *n* bytes generated after this call began; ``b""`` for 0.

        Raises:
            EntropyUnavailableError: When the bytes cannot be had.
            ValueError: When *n* is negative.
        """

    def get_random_float64(
        self, shape: int | tuple[int, ...], out: FloatArray | None = None
    ) -> FloatArray:
        """Returns uniform numbers in the half-open interval [0, 1), multiples of 2**-53.

        Args:
            shape: Shape of the result.
            out: C-contiguous float64 array of that shape, filled in place and returned.

        Raises:
            EntropyUnavailableError: When the bytes cannot be had.
            TypeError: When *out* is not float64.
            ValueError: When *out* has another shape or is not C-contiguous and writeable.
        """
        result = np.empty(shape, dtype=np.float64) if out is None else _checked_out(out, shape)
        data = self.draw(8 * result.size).data
        words = np.frombuffer(data, dtype="<u8").reshape(result.shape)
        np.multiply(words >> np.uint64(_MANTISSA_SHIFT), _MANTISSA_ULP, out=result)
        return result

    def draw(self, n: int) -> EntropyDraw:
        """Returns *n* bytes with their provenance, in as few requests as :attr:`limits` allow.

        Raises:
            EntropyUnavailableError: When the bytes are unavailable, or fewer than requested.
            ValueError: When *n* is negative.
        """
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        requested_ns = time.monotonic_ns()
        largest = self.limits.max_bytes_per_request
        whole = n and (largest is None or n <= largest)
        pieces = [self._exactly(n)] if whole else self._pieces(n)
        return EntropyDraw(
            # Of one piece without a copy, unless the source hands out something else than bytes.
            data=bytes(pieces[0]) if whole else b"".join(pieces),
            source=self.name,
            origin=self.origin,
            requested_ns=requested_ns,
            received_ns=time.monotonic_ns(),
            wall_time_ns=time.time_ns(),
            requests=len(pieces),
        )

    def committed_draw(self, n: int, commitment: bytes) -> EntropyDraw:
        """Returns what :meth:`draw` returns; the far side learns *commitment* with the request.

        Only a source that :attr:`commits` has anything to send it to; any other one drops it.

        Args:
            n: Number of bytes.
            commitment: Digest of what the bytes are about to decide, at most 64 bytes.

        Raises:
            EntropyUnavailableError: As :meth:`draw`.
            ValueError: As :meth:`draw`.
        """
        return self.draw(n)

    def draw_rows(self, contexts: Sequence[RowContext], sizes: Sequence[int]) -> EntropyDraw:
        """Returns the blocks of rows, one after the other, in one draw.

        Only a source that :attr:`serves_rows` has blocks that belong to certain rows; any other one
        serves them from a common draw.

        Args:
            contexts: Which token each row is going to decide.
            sizes: How many bytes each block has, not negative; as many as there are *contexts*.

        Raises:
            EntropyUnavailableError: As :meth:`draw`, and when one of the rows has no block.
            ValueError: As :meth:`draw`.
        """
        return self.draw(sum(sizes))

    def status(self) -> SourceStatus:
        """Returns what is known without touching the device."""
        return SourceStatus(available=True)

    def probe(self) -> SourceStatus:
        """Returns what one real one-byte draw says; spends that byte."""
        try:
            self.draw(1)
        except EntropyUnavailableError as error:
            return SourceStatus(available=False, reason=error.reason)
        return SourceStatus(available=True)

    def close(self) -> None:
        """Releases sockets, devices and threads. May be called more than once."""
        return

    def _pieces(self, n: int) -> list[bytes]:
        pieces: list[bytes] = []
        for size in self._request_sizes(n):
            try:
                pieces.append(self._exactly(size))
            except EntropyUnavailableError as error:
                # A draw is served whole or not at all.
                error.dropped_bytes += sum(map(len, pieces))
                raise
        return pieces

    def _request_sizes(self, n: int) -> list[int]:
        largest = self.limits.max_bytes_per_request or n
        return [min(largest, n - start) for start in range(0, n, max(largest, 1))]

    def _exactly(self, n: int) -> bytes:
        data = self.get_random_bytes(n)
        if len(data) != n:
            raise EntropyUnavailableError(
                self.name,
                f"asked for {n} bytes, received {len(data)}; the answer was dropped",
                dropped_bytes=len(data),
            )
        return data


def _checked_out(out: FloatArray, shape: int | tuple[int, ...]) -> FloatArray:
    """Returns *out* if it can be filled in place, by the rules and error types of NumPy."""
    expected = (shape,) if isinstance(shape, int) else tuple(shape)
    if out.dtype != np.float64:
        raise TypeError(f"out must be float64, got {out.dtype}")
    if out.shape != expected:
        raise ValueError(f"out has shape {out.shape}, expected {expected}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("out must be C-contiguous and writeable; pass a fresh np.empty array")
    return out
