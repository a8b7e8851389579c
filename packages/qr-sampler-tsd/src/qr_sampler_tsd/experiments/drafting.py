# SPDX-License-Identifier: Apache-2.0
"""How the drafts of an experiment come about: from any sampling unit, or by the direct route."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from qr_sampler_tsd._typing import FloatArray, TokenArray
from qr_sampler_tsd.experiments.contexts import ContextTable
from qr_sampler_tsd.psi_fields import Psi
from qr_sampler_tsd.uniforms import Role, UniformSource

__all__ = ["DIRECT", "Drafter", "Samples", "SamplingUnit"]

DIRECT = "sim"
"""Name of the direct route: F(psi) by its inverse distribution function, O(log K) per draft."""


class Samples(Protocol):
    """What a unit returns."""

    @property
    def tokens(self) -> TokenArray:
        """Shape ``(B,)``."""

    @property
    def log_q(self) -> FloatArray:
        """Shape ``(B,)``: log F(psi) of :attr:`tokens`."""


class SamplingUnit(Protocol):
    """A thermodynamic sampling unit, real or simulated."""

    @property
    def name(self) -> str:
        """Names the unit in results."""

    def sample_categorical(self, psi: Psi, batch_size: int, uniforms: UniformSource) -> Samples:
        """Returns *batch_size* independent draws from F(psi)."""


class Drafter:
    """Draws drafts for several sequences at once.

    Args:
        table: Payload of every context.
        unit: Draws them; ``None`` for the direct route, the same distribution in fewer steps.
        uniforms: Where randomness comes from.
    """

    def __init__(
        self, table: ContextTable, unit: SamplingUnit | None, uniforms: UniformSource
    ) -> None:
        self._table = table
        self._unit = unit
        self._uniforms = uniforms

    @property
    def unit_name(self) -> str:
        """Names the unit in results."""
        return DIRECT if self._unit is None else self._unit.name

    def chains(self, contexts: Sequence[int], length: int) -> list[list[int]]:
        """Returns *length* successive drafts for each sequence, from its context on."""
        blocks: list[list[int]] = [[] for _ in contexts]
        after = self._table.target.context_after
        current = list(contexts)
        for _ in range(length):
            for row, token in enumerate(self._at(current)):
                blocks[row].append(token)
                current[row] = after(token)
        return blocks

    def alternatives(self, contexts: Sequence[int], count: int) -> list[list[int]]:
        """Returns *count* independent drafts for the next position of each sequence."""
        flat = self._at([context for context in contexts for _ in range(count)])
        return [flat[start : start + count] for start in range(0, len(flat), count)]

    def _at(self, contexts: Sequence[int]) -> list[int]:
        """Returns one draft for each of *contexts*."""
        if self._unit is None:
            table, draw = self._table, self._uniforms.draw_one
            return [table[context].law.select_one(draw(Role.PROPOSAL)) for context in contexts]
        rows: dict[int, list[int]] = {}
        for row, context in enumerate(contexts):
            rows.setdefault(context, []).append(row)
        tokens = [0] * len(contexts)
        for context, places in rows.items():
            psi = self._table[context].psi
            drawn = self._unit.sample_categorical(psi, len(places), self._uniforms).tokens
            for place, token in zip(places, drawn.tolist(), strict=True):
                tokens[place] = token
        return tokens
