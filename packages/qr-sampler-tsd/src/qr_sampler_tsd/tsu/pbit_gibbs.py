# SPDX-License-Identifier: Apache-2.0
"""A few p-bits that sample by mixing: Gibbs sweeps over the bits of a rank code.

The cells of F(psi), ordered by probability, are numbered in natural binary on b = ceil(log2(K + 1))
p-bits. One update sets one bit by its conditional probability, sigma(2 gamma) with
gamma = ln(W1 / W0) / 2 of the two states it may choose from; a sweep updates all bits, the highest
first. Clearing a bit leads to a more probable cell, so that every cell is connected to the first.

All chains start at the most probable cell. The distribution after each sweep is known exactly,
therefore so is its distance from F(psi): how many sweeps are enough is computed, not guessed.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from qr_sampler_tsd._typing import FloatArray, TokenArray
from qr_sampler_tsd.errors import MixingError
from qr_sampler_tsd.law import HeadTailLaw
from qr_sampler_tsd.psi_fields import Psi
from qr_sampler_tsd.tsu.adapter import TSUAdapter, tokens_of_cells
from qr_sampler_tsd.uniforms import Role, UniformSource

__all__ = ["PBitGibbsTSU", "sweep_law", "sweeps_needed"]

_Updates: TypeAlias = list[tuple[int, FloatArray]]


class PBitGibbsTSU(TSUAdapter):
    """Draws by *sweeps* sweeps of Gibbs sampling, one uniform per update of a bit.

    Args:
        sweeps: At least 1.
        tv_target: The total variation between the chain's distribution and F(psi) that is allowed,
            above 0 and at most 1. A payload for which the sweeps do not reach it is refused.

    Raises:
        ValueError: When an argument is out of range.
    """

    def __init__(self, sweeps: int, tv_target: float = 1e-3) -> None:
        if sweeps < 1:
            raise ValueError(f"sweeps={sweeps} must be at least 1")
        if not 0 < tv_target <= 1:
            raise ValueError(f"tv_target={tv_target} must be above 0 and at most 1")
        self._sweeps = sweeps
        self._tv_target = tv_target

    @property
    def name(self) -> str:
        """The class, its sweeps and the distance that it allows."""
        return f"PBitGibbsTSU(sweeps={self._sweeps}, tv_target={self._tv_target:g})"

    def law(self, psi: Psi) -> HeadTailLaw:
        """Returns the distribution of the chain after its sweeps.

        Raises:
            MixingError: When that is farther from F(psi) than the target.
        """
        law = psi.law()
        order, ranked = _ranked(law)
        cells = np.zeros(order.size)
        cells[order] = self._mixed(ranked, _updates(ranked))[: order.size]
        return law.with_cells(cells)

    def _mixed(self, ranked: FloatArray, updates: _Updates) -> FloatArray:
        """Returns the distribution of the states after the sweeps, near enough to *ranked*."""
        reached = _start(ranked.size)
        for _ in range(self._sweeps):
            reached = _updated(reached, updates)
        distance = _total_variation(reached, ranked)
        if distance > self._tv_target:
            raise MixingError(
                f"{self._sweeps} sweeps leave a total variation of {distance:.3g} from F(psi), "
                f"{self._tv_target:g} is allowed; allow more sweeps (sweeps_needed() tells how "
                "many) or a greater distance"
            )
        return reached

    def most_uniforms(self, cells: int) -> int:
        """Returns one for each update of a bit, and one for the token of the tail."""
        return self._sweeps * (cells - 1).bit_length() + 1

    def draw_tokens(self, law: HeadTailLaw, batch_size: int, uniforms: UniformSource) -> TokenArray:
        """Returns *batch_size* draws, see :class:`TSUAdapter`."""
        order, ranked = _ranked(law)
        updates = _updates(ranked)
        self._mixed(ranked, updates)
        u = uniforms.draw(self._sweeps * len(updates) * batch_size, Role.PROPOSAL)
        states = np.zeros(batch_size, dtype=np.int64)
        rows = u.reshape(-1, batch_size)
        for (bit, one), row in zip(updates * self._sweeps, rows, strict=True):
            states = np.where(row < one[states], states | (1 << bit), states & ~(1 << bit))
        return tokens_of_cells(law, order[states], uniforms)


def sweeps_needed(psi: Psi, tv_target: float, limit: int = 1_000) -> int:
    """Returns the least number of sweeps whose distribution is within *tv_target* of F(psi).

    Args:
        psi: The payload.
        tv_target: Total variation, above 0.
        limit: The most sweeps to try.

    Raises:
        MixingError: When *limit* sweeps are too few.
    """
    _, ranked = _ranked(psi.law())
    updates, reached = _updates(ranked), _start(ranked.size)
    for sweep in range(1, limit + 1):
        reached = _updated(reached, updates)
        if _total_variation(reached, ranked) <= tv_target:
            return sweep
    raise MixingError(f"{limit} sweeps do not reach a total variation of {tv_target:g}")


def sweep_law(reached: FloatArray, ranked: FloatArray) -> FloatArray:
    """Returns the distribution of the states one sweep later. O(b 2**b), exact but for rounding.

    Args:
        reached: Shape ``(..., 2**b)``: distributions now; the identity gives the transition matrix.
        ranked: Shape ``(2**b,)``: the distribution that the sweep leaves as it is.
    """
    return _updated(reached, _updates(ranked))


def _updated(reached: FloatArray, updates: _Updates) -> FloatArray:
    shape = reached.shape
    for bit, one in updates:
        pairs = reached.reshape(*shape[:-1], -1, 2, 1 << bit)
        mass = pairs.sum(axis=-2, keepdims=True)
        share = one.reshape(-1, 2, 1 << bit)[:, 1:]
        reached = np.concatenate((mass * (1 - share), mass * share), axis=-2).reshape(shape)
    return reached


def _ranked(law: HeadTailLaw) -> tuple[TokenArray, FloatArray]:
    """Returns the cells by descending probability, and that of each rank, shape ``(2**b,)``.

    Ranks without a cell have probability 0.
    """
    cells = law.cell_probs
    order = np.argsort(-cells, kind="stable")
    ranked = np.zeros(1 << (cells.size - 1).bit_length())
    ranked[: cells.size] = cells[order]
    return order, ranked


def _start(states: int) -> FloatArray:
    """Returns the distribution of a chain that is at the most probable cell."""
    law = np.zeros(states)
    law[0] = 1.0
    return law


def _updates(ranked: FloatArray) -> _Updates:
    """Returns the bits in the order of a sweep, each with its probability of a 1 in every state."""
    updates = []
    for bit in reversed(range(ranked.size.bit_length() - 1)):
        pairs = ranked.reshape(-1, 2, 1 << bit)
        mass = pairs.sum(axis=1, keepdims=True)
        # No chain comes to a pair of states that both have probability 0.
        share = np.divide(pairs[:, 1:], mass, out=np.zeros_like(mass), where=mass > 0)
        updates.append((bit, np.broadcast_to(share, pairs.shape).reshape(-1)))
    return updates


def _total_variation(one: FloatArray, other: FloatArray) -> float:
    return 0.5 * float(np.abs(one - other).sum())
