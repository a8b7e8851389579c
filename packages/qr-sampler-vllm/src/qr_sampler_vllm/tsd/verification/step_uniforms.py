# SPDX-License-Identifier: Apache-2.0
"""The numbers of one draw, each of which is used once and for one role."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from qr_sampler import EntropyDraw, step_commitment
from qr_sampler.arrays import FloatArray
from qr_sampler.records.entries import DrawnNumber
from qr_sampler.sampling.kept_bytes import KeptBytes, keep
from qr_sampler_tsd.errors import UniformsExhaustedError
from qr_sampler_tsd.uniforms import BYTES_PER_UNIFORM, Role, UniformSource, uniforms_of

__all__ = ["NumbersDraw", "StepUniforms", "Used"]


@dataclass(frozen=True, eq=False)
class NumbersDraw:
    """A draw of numbers as the ledger tells of it. Equal only to itself."""

    draw: EntropyDraw
    """The draw without its bytes."""
    draw_bytes: int
    """Number of bytes that it has brought."""
    data_sha256: str
    """SHA-256 of them, hexadecimal."""
    logits_ready_ns: int | None
    """When the logits were complete; ``None`` if it preceded them."""
    commitment: str = ""
    """Digest that travelled with the request, hexadecimal; empty if none did."""
    rows_told: tuple[str, ...] = ()
    """Digests of the rows that it covers, hexadecimal."""
    kept: KeptBytes | None = None
    """Its bytes, for the ledger; ``None`` if nobody keeps them."""

    @property
    def data(self) -> bytes | None:
        """These bytes; ``None`` if nobody keeps them."""
        return None if self.kept is None else self.kept.data

    @classmethod
    def of(
        cls,
        draw: EntropyDraw,
        logits_ready_ns: int | None,
        *,
        rows_told: Sequence[bytes] = (),
        keep_bytes: bool = False,
    ) -> NumbersDraw:
        """Returns what is kept of *draw*.

        Args:
            draw: The draw, with its bytes.
            logits_ready_ns: When the logits were complete; ``None`` if it preceded them.
            rows_told: Digests of the rows that its commitment covers, if it was told any.
            keep_bytes: Whether its bytes are kept, too, as far as there is room.
        """
        return cls(
            draw.without_data(),
            len(draw.data),
            hashlib.sha256(draw.data).hexdigest(),
            logits_ready_ns,
            commitment=step_commitment(rows_told).hex() if rows_told else "",
            rows_told=tuple(digest.hex() for digest in rows_told),
            kept=keep(draw.data) if keep_bytes else None,
        )


@dataclass(frozen=True, slots=True)
class Used:
    """A number and what it was used for, or all numbers that drew one draft."""

    role: Role
    """What it was used for."""
    u: float
    """The number, in [0, 1); the first of several."""
    data: bytes
    """The eight bytes behind each."""
    origin: NumbersDraw
    """The draw that delivered them."""
    offset: int
    """Index of the first of them in that draw."""
    log_q: float | None = None
    """``log q`` of the draft that it drew, natural logarithm."""
    unit_ns: int | None = None
    """How long the sampling unit took for that."""

    @property
    def draw(self) -> EntropyDraw:
        """That draw without its bytes."""
        return self.origin.draw

    @property
    def place(self) -> DrawnNumber:
        """Where the bytes are."""
        return DrawnNumber(self.origin, self.offset)

    @property
    def jit(self) -> bool:
        """Whether it was requested after the logits were complete."""
        return self.role is not Role.PROPOSAL

    def as_dict(self) -> dict[str, Any]:
        """Returns its entry in a record."""
        entry: dict[str, Any] = {
            "role": self.role.value,
            "u": self.u,
            "bytes": len(self.data),
            "jit": self.jit,
            "source": self.draw.source,
            "fallback": self.draw.fallback,
            "t_request_ns": self.draw.requested_ns,
            "t_received_ns": self.draw.received_ns,
        }
        if self.log_q is not None:
            entry |= {"log_q": self.log_q, "unit_ns": self.unit_ns}
        return entry


class StepUniforms(UniformSource):
    """A share of a draw that serves several sequences.

    Args:
        data: The bytes of the draw.
        origin: What is kept of it.
        first: Index of the first number of the share.
        count: How many there are.
    """

    def __init__(self, data: bytes, origin: NumbersDraw, first: int, count: int) -> None:
        super().__init__()
        self._data, self._origin = data, origin
        self._next, self._end = first, first + count
        self.used: list[Used] = []
        """The numbers used so far, in order."""

    def together(self, first: int) -> Used | None:
        """Returns the numbers used from *first* on, an index of :attr:`used`, as one entry.

        ``None`` if there are none.
        """
        own = self.used[first:]
        return replace(own[0], data=b"".join(one.data for one in own)) if own else None

    @property
    def place(self) -> DrawnNumber:
        """Where the first number is that has not been used."""
        return DrawnNumber(self._origin, BYTES_PER_UNIFORM * self._next)

    @property
    def left(self) -> int:
        """How many numbers have not been used."""
        return self._end - self._next

    def _take(self, n: int, role: Role) -> FloatArray:
        if n > self.left:
            raise UniformsExhaustedError(f"{n} uniforms are wanted and {self.left} were drawn")
        begin = BYTES_PER_UNIFORM * self._next
        data = self._data[begin : begin + BYTES_PER_UNIFORM * n]
        self._next += n
        values = uniforms_of(data)
        for index, u in enumerate(values.tolist()):
            offset = BYTES_PER_UNIFORM * index
            piece = data[offset : offset + BYTES_PER_UNIFORM]
            self.used.append(Used(role, u, piece, self._origin, begin + offset))
        return values
