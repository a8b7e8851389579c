# SPDX-License-Identifier: Apache-2.0
"""What :class:`qr_sampler_tsd.tsu.ThrmlTSU` runs in thrml; needs the extra ``thrml``."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import numpy as jnp
from numpy.typing import NDArray
from thrml import Block, BlockGibbsSpec, CategoricalNode
from thrml.block_sampling import BlockSamplingProgram, sample_blocks
from thrml.factor import FactorSamplingProgram
from thrml.models.discrete_ebm import CategoricalEBMFactor, CategoricalGibbsConditional

__all__ = ["NO_STATE", "CategoricalProgram"]

NO_STATE = -1e30
"""The log weight of a state that must not occur. With ``-inf`` the sum over inactive interactions
would be NaN: it multiplies them by 0."""

_STATE_DTYPE = jnp.uint16
"""The default of thrml, uint8, holds 256 states."""


class _InverseDistribution(CategoricalGibbsConditional):  # type: ignore[misc]
    """Selects states by uniforms that come as the sampler's state, and leaves the key unread."""

    def sample_given_parameters(
        self,
        key: Any,
        parameters: jax.Array,
        sampler_state: jax.Array,
        output_sd: jax.ShapeDtypeStruct,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the state of each node at its uniform of the inverse distribution function."""
        weights = jnp.exp(parameters - parameters.max(axis=-1, keepdims=True))
        # A parallel sum need not be monotone in its last bit.
        cumulative = jax.lax.cummax(jnp.cumsum(weights, axis=-1), axis=parameters.ndim - 1)
        heights = sampler_state[:, None] * cumulative[:, -1:]
        states = (cumulative <= heights).sum(axis=-1)
        last = (parameters > NO_STATE / 2).sum(axis=-1) - 1
        return jnp.minimum(states, last).astype(output_sd.dtype), sampler_state


class CategoricalProgram:
    """A compiled thrml program of independent categorical nodes with weights of their own.

    Args:
        nodes: How many nodes, one per draw.
        states: How many states each has, at most 65,536.
    """

    def __init__(self, nodes: int, states: int) -> None:
        block = Block([CategoricalNode() for _ in range(nodes)])
        spec = BlockGibbsSpec(
            [block], [], {CategoricalNode: jax.ShapeDtypeStruct((), _STATE_DTYPE)}
        )
        factor = CategoricalEBMFactor([block], jnp.zeros((nodes, states)))
        self._program = FactorSamplingProgram(spec, [_InverseDistribution(states)], [factor], [])
        # A separate program per payload would be traced again: nodes are compared by identity.
        self._step = eqx.filter_jit(_step)
        self._key = jax.random.key(0)
        self._initial = jnp.zeros(nodes, _STATE_DTYPE)

    def sample(self, log_weights: NDArray[np.float32], u: NDArray[np.float32]) -> NDArray[np.int64]:
        """Returns one state per node.

        Args:
            log_weights: Shape ``(states,)``, in front those that can occur.
            u: Shape ``(nodes,)``, in [0, 1).
        """
        states = self._step(self._program, log_weights, u, self._key, self._initial)
        return np.asarray(states, dtype=np.int64)


def _step(
    program: BlockSamplingProgram,
    log_weights: jax.Array,
    u: jax.Array,
    key: jax.Array,
    initial: jax.Array,
) -> jax.Array:
    """Returns the states after one update of all nodes under new weights."""
    shape = (u.size, 1, log_weights.size)
    weighted = eqx.tree_at(
        lambda tree: tree.per_block_interactions[0][0].weights,
        program,
        jnp.broadcast_to(log_weights, shape),
    )
    (states,), _ = sample_blocks(key, [initial], [], weighted, [u])
    return states
