# SPDX-License-Identifier: Apache-2.0
"""What :class:`qr_sampler_tsd.tsu.ThrmlTSU` runs in thrml; needs the extra ``thrml``."""

from __future__ import annotations

from functools import partial
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
        heights = sampler_state * cumulative[:, -1]
        states = jax.vmap(partial(jnp.searchsorted, side="right"))(cumulative, heights)
        last = (parameters > NO_STATE / 2).sum(axis=-1) - 1
        return jnp.minimum(states, last).astype(output_sd.dtype), sampler_state


class CategoricalProgram:
    """A compiled thrml program of one categorical node, run once for each of many uniforms.

    The weights are there once, whatever the number of draws: what is mapped over is the uniform.

    Args:
        states: How many states the node has, at most 65,536.
    """

    def __init__(self, states: int) -> None:
        block = Block([CategoricalNode()])
        spec = BlockGibbsSpec(
            [block], [], {CategoricalNode: jax.ShapeDtypeStruct((), _STATE_DTYPE)}
        )
        factor = CategoricalEBMFactor([block], jnp.zeros((1, states)))
        self._program = FactorSamplingProgram(spec, [_InverseDistribution(states)], [factor], [])
        # A separate program per payload would be traced again: nodes are compared by identity.
        self._step = eqx.filter_jit(_step)
        self._key = jax.random.key(0)

    def sample(self, log_weights: NDArray[np.float32], u: NDArray[np.float32]) -> NDArray[np.int64]:
        """Returns one state per uniform.

        Args:
            log_weights: Shape ``(states,)``, in front those that can occur.
            u: Shape ``(B,)``, in [0, 1).
        """
        states = self._step(self._program, log_weights, u, self._key)
        return np.asarray(states, dtype=np.int64)


def _step(
    program: BlockSamplingProgram, log_weights: jax.Array, u: jax.Array, key: jax.Array
) -> jax.Array:
    """Returns the states after one update of the node under new weights, one per uniform."""
    weighted = eqx.tree_at(
        lambda tree: tree.per_block_interactions[0][0].weights, program, log_weights[None, None]
    )
    initial = jnp.zeros(1, _STATE_DTYPE)

    def drawn(uniform: jax.Array) -> jax.Array:
        (states,), _ = sample_blocks(key, [initial], [], weighted, [uniform[None]])
        return states[0]

    return jax.vmap(drawn)(u)
