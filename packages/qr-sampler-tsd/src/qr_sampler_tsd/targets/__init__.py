# SPDX-License-Identifier: Apache-2.0
"""Targets of the milestones: a fixed distribution (M0), bigrams (M1); a seed reproduces each."""

from __future__ import annotations

from qr_sampler_tsd.targets.base import Target
from qr_sampler_tsd.targets.bigram import (
    BigramTable,
    CorpusBigram,
    Vocabulary,
    build_vocab_from_corpus,
    make_bigram_from_corpus,
    make_bigram_synthetic,
    row_logprobs,
)
from qr_sampler_tsd.targets.categorical import CategoricalTarget, entropy, make_p, make_p_zipf
from qr_sampler_tsd.targets.synthetic import SyntheticBigram

__all__ = [
    "BigramTable",
    "CategoricalTarget",
    "CorpusBigram",
    "SyntheticBigram",
    "Target",
    "Vocabulary",
    "build_vocab_from_corpus",
    "entropy",
    "make_bigram_from_corpus",
    "make_bigram_synthetic",
    "make_p",
    "make_p_zipf",
    "row_logprobs",
]
