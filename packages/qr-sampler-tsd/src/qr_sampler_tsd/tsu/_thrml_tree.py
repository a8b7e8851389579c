# SPDX-License-Identifier: Apache-2.0
"""What :class:`qr_sampler_tsd.tsu.ThrmlTreeTSU` runs in thrml; needs the extra ``thrml``.

A tree of p-bits as coupled spins: one ``SpinNode`` per level. The bias of a level depends on the
spins of the levels above it, s = -1 or +1 each, and any such function is a polynomial

    gamma(s) = sum over sets S of spins above of J_S prod over S of s,

whose coefficients are the couplings (its Walsh-Hadamard transform). Couplings act from a level on
those below only, so that one sweep from the root to the leaves is an exact draw.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp
from numpy.typing import NDArray
from thrml import Block, BlockGibbsSpec, SpinNode
from thrml.block_sampling import BlockSamplingProgram, sample_blocks
from thrml.interaction import InteractionGroup
from thrml.models.discrete_ebm import DiscreteEBMInteraction, SpinGibbsConditional

__all__ = ["SpinTreeProgram", "couplings"]


class _Threshold(SpinGibbsConditional):  # type: ignore[misc]
    """Sets spins by uniforms that come as the sampler's state, and leaves the key unread."""

    def sample_given_parameters(
        self,
        key: Any,
        parameters: jax.Array,
        sampler_state: jax.Array,
        output_sd: jax.ShapeDtypeStruct,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns +1 with the probability sigma(2 gamma): where the uniform lies below it."""
        up = sampler_state < jax.nn.sigmoid(2 * parameters)
        return up.astype(output_sd.dtype), sampler_state


class SpinTreeProgram:
    """A compiled thrml program of one chain of coupled spins, run once for each of many uniforms.

    The couplings are there once, whatever the number of draws: what is mapped over is uniforms.

    Args:
        levels: How many spins, at least 1.
    """

    def __init__(self, levels: int) -> None:
        nodes = [SpinNode() for _ in range(levels)]
        spec = BlockGibbsSpec([Block([node]) for node in nodes], [])
        groups = [
            _coupled(nodes[level], nodes[:level], order)
            for level in range(levels)
            for order in range(level + 1)
        ]
        self._program = BlockSamplingProgram(spec, [_Threshold()] * levels, groups)
        # A separate program per payload would be traced again: nodes are compared by identity.
        self._step = eqx.filter_jit(_step)
        self._key = jax.random.key(0)

    def sample(
        self, weights: list[NDArray[np.float32]], u: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Returns the leaf that each draw comes to, in [0, 2**levels).

        Args:
            weights: From :func:`couplings`.
            u: Shape ``(levels, B)``, in (0, 1).
        """
        spins = np.asarray(self._step(self._program, weights, u, self._key), dtype=np.int64)
        powers = 1 << np.arange(len(u))[::-1]
        leaves: NDArray[np.int64] = powers @ spins
        return leaves


def couplings(biases: NDArray[np.float64]) -> list[NDArray[np.float32]]:
    """Returns the couplings that give every node of a tree its bias.

    Args:
        biases: Shape ``(2**levels,)``, finite, as a heap with the root at 1.

    Returns:
        For each level from the root and each order from 0 to the number of levels above it, the
        couplings to the sets of so many of these, in the order of :func:`itertools.combinations`.
    """
    found = []
    for level in range(biases.size.bit_length() - 1):
        table = biases[1 << level : 2 << level].reshape((2,) * level)
        for axis in range(level):
            down, up = np.take(table, 0, axis), np.take(table, 1, axis)
            table = np.stack(((up + down) / 2, (up - down) / 2), axis)
        for order in range(level + 1):
            sets = combinations(range(level), order)
            chosen = [table[tuple(int(at in one) for at in range(level))] for one in sets]
            found.append(np.array(chosen, dtype=np.float32))
    return found


def _coupled(node: SpinNode, above: list[SpinNode], order: int) -> InteractionGroup:
    """Returns couplings of *node* to every set of *order* spins above it, all 0."""
    sets = list(combinations(above, order))
    tails = [Block([one[place] for one in sets]) for place in range(order)]
    interaction = DiscreteEBMInteraction(order, jnp.zeros(len(sets)))
    return InteractionGroup(interaction, Block([node] * len(sets)), tails)


def _step(
    program: BlockSamplingProgram, weights: list[jax.Array], u: jax.Array, key: jax.Array
) -> jax.Array:
    """Returns the spins after one sweep from the root under new couplings. Shape ``(levels, B)``.

    The initial spins do not matter: each is set before another one depends on it.
    """
    coupled = eqx.tree_at(
        lambda tree: [
            interaction.weights for block in tree.per_block_interactions for interaction in block
        ],
        program,
        [own[None] for own in weights],
    )
    initial = jnp.zeros(1, jnp.bool_)

    def drawn(uniforms: jax.Array) -> jax.Array:
        states = [initial for _ in range(len(u))]
        spins, _ = sample_blocks(key, states, [], coupled, [own[None] for own in uniforms])
        return jnp.concatenate(spins)

    return jax.vmap(drawn, in_axes=1, out_axes=1)(u)
