# SPDX-License-Identifier: Apache-2.0
"""The numbers of one draw, each of which is used once and for one role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qr_sampler import EntropyDraw
from qr_sampler.arrays import FloatArray
from qr_sampler_tsd.errors import UniformsExhaustedError
from qr_sampler_tsd.uniforms import BYTES_PER_UNIFORM, Role, UniformSource, uniforms_of

__all__ = ["StepUniforms", "Used"]


@dataclass(frozen=True, slots=True)
class Used:
    """A number and what it was used for."""

    role: Role
    """What it was used for."""
    u: float
    """The number, in [0, 1)."""
    data: bytes
    """The eight bytes behind it."""
    draw: EntropyDraw
    """The draw that delivered them, without its bytes."""
    draw_bytes: int
    """Number of bytes of that draw."""

    @property
    def jit(self) -> bool:
        """Whether it was requested after the logits were complete."""
        return self.role is not Role.PROPOSAL

    def as_dict(self) -> dict[str, Any]:
        """Returns its entry in a record."""
        return {
            "role": self.role.value,
            "u": self.u,
            "bytes": len(self.data),
            "jit": self.jit,
            "source": self.draw.source,
            "fallback": self.draw.fallback,
            "t_request_ns": self.draw.requested_ns,
            "t_received_ns": self.draw.received_ns,
        }


class StepUniforms(UniformSource):
    """A share of a draw that serves several sequences.

    Args:
        draw: The draw.
        first: Index of the first number of the share.
        count: How many there are.
    """

    def __init__(self, draw: EntropyDraw, first: int, count: int) -> None:
        super().__init__()
        self._data, self._provenance = draw.data, draw.without_data()
        self._next, self._end = first, first + count
        self.used: list[Used] = []
        """The numbers used so far, in order."""

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
            piece = data[BYTES_PER_UNIFORM * index : BYTES_PER_UNIFORM * (index + 1)]
            self.used.append(Used(role, u, piece, self._provenance, len(self._data)))
        return values
