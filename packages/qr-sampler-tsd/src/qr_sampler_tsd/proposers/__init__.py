# SPDX-License-Identifier: Apache-2.0
"""Who guesses the next token: proposers map what is known of a sequence to a payload."""

from __future__ import annotations

from qr_sampler_tsd.proposers.base import Proposer
from qr_sampler_tsd.proposers.bigram import BigramProposer
from qr_sampler_tsd.proposers.files import load_proposer, save_proposer
from qr_sampler_tsd.proposers.head import HeadProposer, HeadWeights
from qr_sampler_tsd.proposers.mixture import MixedProposer
from qr_sampler_tsd.proposers.named import PROPOSERS, proposer_named
from qr_sampler_tsd.proposers.ngram import NgramProposer
from qr_sampler_tsd.proposers.oracle import OracleProposer

__all__ = [
    "PROPOSERS",
    "BigramProposer",
    "HeadProposer",
    "HeadWeights",
    "MixedProposer",
    "NgramProposer",
    "OracleProposer",
    "Proposer",
    "load_proposer",
    "proposer_named",
    "save_proposer",
]
