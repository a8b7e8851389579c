# SPDX-License-Identifier: Apache-2.0
"""The e-process of a study, which is looked at after every block."""

from __future__ import annotations

import math

from qr_sampler_lab.analysis import EProcess
from qr_sampler_lab.experiments.protocol import Protocol

__all__ = ["e_process_of"]


def e_process_of(protocol: Protocol) -> EProcess | None:
    """Returns the e-process of a study, of one score per block; ``None`` where N is fixed.

    A block of m pairs of tokens has the score ``sum(d) / sqrt(m)``, d being the difference of a
    pair divided by sqrt(2). With ``tau * sqrt(m)`` the e-value of n blocks is that of their n m
    pairs with tau, since ``1 + n m tau**2`` and ``tau * sum(d)`` are the same. Where arms have n_1
    and n_2 tokens in a block, m is their harmonic mean. It follows from the protocol alone, so that
    no choice of a bet depends on the data.

    Args:
        protocol: What was planned; its primary endpoint names the side that counts.
    """
    stopping, primary = protocol.stopping, protocol.primary
    if stopping.rule != "e_value" or stopping.tau is None:
        return None
    tokens, blocks = protocol.tokens_per_arm, protocol.design.blocks
    pairs = len(primary.contrast) / math.fsum(blocks / tokens[arm] for arm in primary.contrast)
    return EProcess(
        tau=stopping.tau * math.sqrt(pairs), alpha=primary.alpha, alternative=primary.side
    )
