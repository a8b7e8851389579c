# SPDX-License-Identifier: Apache-2.0
"""A source that falls back to another one when it cannot deliver, and flags each such draw."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from qr_sampler.entropy.draw import EntropyDraw, SourceLimits, SourceStatus
from qr_sampler.entropy.guard import GuardedSource
from qr_sampler.entropy.row_context import RowContext
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import EntropyUnavailableError

__all__ = ["FallbackEntropySource", "primary_guard"]


class FallbackEntropySource(EntropySource):
    r"""Draws from *primary*, and from *fallback* when the primary is unavailable.

    Only :class:`~qr_sampler.errors.EntropyUnavailableError` leads to the fallback. A draw that the
    fallback served carries its name, ``fallback=True`` and the reason; a draw is served whole by
    one source, never mixed from two.

    Examples:
        >>> from qr_sampler.testing import ConstantEntropySource
        >>> broken = ConstantEntropySource(name="device", fail_with="unplugged")
        >>> spare = ConstantEntropySource(name="spare", value=7)
        >>> draw = FallbackEntropySource(broken, spare).draw(2)
        >>> draw.data, draw.source, draw.fallback, draw.fallback_from, draw.fallback_reason
        (b'\x07\x07', 'spare', True, 'device', 'device: unplugged')
    """

    def __init__(self, primary: EntropySource, fallback: EntropySource) -> None:
        self.primary = primary
        self.fallback = fallback
        self.jit_class = primary.jit_class
        self.conditioning = primary.conditioning
        self.origin = primary.origin
        self.commits = primary.commits
        self.serves_rows = primary.serves_rows
        self.integrates = primary.integrates

    @property
    def name(self) -> str:
        """The primary's name: the source that the operator chose."""
        return self.primary.name

    @property
    def limits(self) -> SourceLimits:
        """The primary's limits."""
        return self.primary.limits

    @property
    def recorded_settings(self) -> Mapping[str, object]:
        """The primary's settings."""
        return self.primary.recorded_settings

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* bytes from either source; use :meth:`draw` to learn from which."""
        return self.draw(n).data

    def draw(self, n: int) -> EntropyDraw:
        """Returns *n* bytes, flagged when they are the fallback's.

        Raises:
            EntropyUnavailableError: When both sources are unavailable; names both reasons.
        """
        try:
            return self.primary.draw(n)
        except EntropyUnavailableError as error:
            return self._draw_from_fallback(n, error)

    def committed_draw(self, n: int, commitment: bytes) -> EntropyDraw:
        """Returns *n* bytes as :meth:`draw` does; only the primary learns the commitment.

        Raises:
            EntropyUnavailableError: When both sources are unavailable; names both reasons.
        """
        try:
            return self.primary.committed_draw(n, commitment)
        except EntropyUnavailableError as error:
            return self._draw_from_fallback(n, error)

    def draw_rows(self, contexts: Sequence[RowContext], sizes: Sequence[int]) -> EntropyDraw:
        """Returns the blocks of rows as :meth:`draw` does; the fallback learns of no row.

        Raises:
            EntropyUnavailableError: When both sources are unavailable; names both reasons.
        """
        try:
            return self.primary.draw_rows(contexts, sizes)
        except EntropyUnavailableError as error:
            return self._draw_from_fallback(sum(sizes), error)

    def _draw_from_fallback(self, n: int, cause: EntropyUnavailableError) -> EntropyDraw:
        try:
            draw = self.fallback.draw(n)
        except EntropyUnavailableError as error:
            raise EntropyUnavailableError(
                self.name,
                f"{cause.reason}; its fallback {error.source!r} failed too: {error.reason}",
            ) from cause
        return dataclasses.replace(
            draw,
            fallback=True,
            fallback_from=cause.source,
            fallback_reason=f"{cause.source}: {cause.reason}",
        )

    def status(self) -> SourceStatus:
        """Returns the primary's status, or the fallback's when the primary is down."""
        primary = self.primary.status()
        if primary.available:
            return primary
        fallback = self.fallback.status()
        return SourceStatus(
            available=fallback.available,
            reason=f"{self.primary.name}: {primary.reason}; falling back to {self.fallback.name}",
        )

    def close(self) -> None:
        """Closes both sources."""
        self.primary.close()
        self.fallback.close()


def primary_guard(source: EntropySource) -> GuardedSource | None:
    """Returns the guard of *source* itself, not of its fallback; ``None`` if it has none."""
    primary = source.primary if isinstance(source, FallbackEntropySource) else source
    return primary if isinstance(primary, GuardedSource) else None
