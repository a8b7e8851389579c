# SPDX-License-Identifier: Apache-2.0
"""A binary tree of p-bits: the chain rule, one p-bit per level, exact without any mixing.

The cells of F(psi), its K head tokens and its tail, are the leaves. A p-bit of bias gamma is 1 with
probability sigma(2 gamma); at a node whose branches weigh W0 and W1, gamma = ln(W1 / W0) / 2 makes
that W1 / (W0 + W1). Following the bits from the root draws a leaf with its probability.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import expit

from qr_sampler_tsd._typing import FloatArray, TokenArray
from qr_sampler_tsd.law import HeadTailLaw
from qr_sampler_tsd.psi_fields import Psi
from qr_sampler_tsd.tsu.adapter import TSUAdapter, tokens_of_cells
from qr_sampler_tsd.uniforms import Role, UniformSource

__all__ = ["BIAS_RANGE", "PBitTreeTSU", "tree_biases"]

BIAS_RANGE: Final = 8.0
"""A converter spans the biases from minus this to this."""


class PBitTreeTSU(TSUAdapter):
    """Draws by b = ceil(log2(K + 1)) p-bits one after the other, and the tail token by a uniform.

    A branch of weight 0 is never taken: its p-bit is clamped, also behind a converter.

    Args:
        dac_bits: Resolution of the converter that sets the biases, 2 to 24 bits over
            [-8, 8]; ``None`` for biases in float64.

    Raises:
        ValueError: When *dac_bits* is out of range.

    Examples:
        >>> PBitTreeTSU(dac_bits=12).name
        'PBitTreeTSU(dac_bits=12)'
    """

    def __init__(self, dac_bits: int | None = None) -> None:
        if dac_bits is not None and not 2 <= dac_bits <= 24:
            raise ValueError(f"dac_bits={dac_bits} must be from 2 to 24, or None for no converter")
        self._dac_bits = dac_bits

    @property
    def name(self) -> str:
        """The class and its converter."""
        return f"PBitTreeTSU(dac_bits={self._dac_bits})"

    def law(self, psi: Psi) -> HeadTailLaw:
        """Returns the distribution with the biases as the converter sets them."""
        law = psi.law()
        return law.with_cells(_leaf_probs(self._bit_probs(law))[: law.ids.size + 1])

    def tv_bound(self, cells: int) -> float:
        """Returns a bound on the total variation between device and F(psi), whatever psi is.

        A bias off by at most half a step changes the probability of its bit by at most a quarter of
        the step, as sigma(2 gamma) has a slope of at most 1/2; a bias beyond the range changes it
        by sigma(-16) at most. The errors of the levels add up (chain rule of total variation).

        Args:
            cells: K + 1.
        """
        if self._dac_bits is None:
            return 0.0
        per_bit = _step(self._dac_bits) / 4 + float(expit(-2 * BIAS_RANGE))
        return min(1.0, (cells - 1).bit_length() * per_bit)

    def most_uniforms(self, cells: int) -> int:
        """Returns one for each level, and one for the token of the tail."""
        return (cells - 1).bit_length() + 1

    def draw_tokens(self, law: HeadTailLaw, batch_size: int, uniforms: UniformSource) -> TokenArray:
        """Returns *batch_size* draws, see :class:`TSUAdapter`."""
        probs = self._bit_probs(law)
        levels = probs.size.bit_length() - 1
        nodes = np.ones(batch_size, dtype=np.int64)
        for u in uniforms.draw(levels * batch_size, Role.PROPOSAL).reshape(levels, batch_size):
            nodes = 2 * nodes + (u < probs[nodes])
        return tokens_of_cells(law, nodes - probs.size, uniforms)

    def _bit_probs(self, law: HeadTailLaw) -> FloatArray:
        """Returns the probability of a 1 at each inner node, as a heap: the root is at 1."""
        bias = tree_biases(law)
        free = np.isfinite(bias)
        if self._dac_bits is not None:
            bias[free] = _converted(bias[free], self._dac_bits)
        probs: FloatArray = expit(2 * bias)
        return probs


def tree_biases(law: HeadTailLaw) -> FloatArray:
    """Returns the bias at each inner node of the tree over the cells of *law*, as a heap.

    Shape ``(2**b,)``: the root is at 1, the children of i are at 2 i and 2 i + 1. A node whose
    branch weighs nothing has an infinite bias; one that no draw comes to has 0.
    """
    weights = _heap_of_sums(law.cell_probs)
    zero, one = weights[0::2], weights[1::2]
    with np.errstate(divide="ignore", invalid="ignore"):
        biases: FloatArray = np.where(zero + one > 0, 0.5 * np.log(one / zero), 0.0)
    return biases


def _step(dac_bits: int) -> float:
    return float(2 * BIAS_RANGE / (2**dac_bits - 1))


def _converted(bias: FloatArray, dac_bits: int) -> FloatArray:
    step = _step(dac_bits)
    codes = np.rint((bias.clip(-BIAS_RANGE, BIAS_RANGE) + BIAS_RANGE) / step)
    return codes * step - BIAS_RANGE


def _heap_of_sums(leaves: FloatArray) -> FloatArray:
    """Returns the weights of all nodes: children of i at 2 i and 2 i + 1, leaves in the last half.

    Leaves are filled up to a power of two with weight 0.
    """
    size = 1 << (leaves.size - 1).bit_length()
    heap = np.zeros(2 * size)
    heap[size : size + leaves.size] = leaves
    level = size
    while level > 1:
        heap[level // 2 : level] = heap[level : 2 * level : 2] + heap[level + 1 : 2 * level : 2]
        level //= 2
    return heap


def _leaf_probs(bit_probs: FloatArray) -> FloatArray:
    """Returns the probability of each leaf of a tree of p-bits."""
    probs = np.ones(1)
    while probs.size < bit_probs.size:
        one = bit_probs[probs.size : 2 * probs.size]
        probs = np.column_stack((probs * (1 - one), probs * one)).ravel()
    return probs
