# SPDX-License-Identifier: Apache-2.0
"""What is added up of the tokens of one arm."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from qr_sampler_lab.analysis import (
    Battery,
    BlockBits,
    EProcess,
    LatticeLaw,
    Sensitivity,
    Visibility,
)
from qr_sampler_lab.analysis.exploratory import SplitMeans
from qr_sampler_lab.report.adding.answers import AnswerLengths
from qr_sampler_lab.report.adding.arms import ArmKey
from qr_sampler_lab.report.adding.paths import SumPath
from qr_sampler_lab.report.adding.scores import ScoreFile
from qr_sampler_lab.report.adding.sessions import SessionMeans
from qr_sampler_lab.tables.columns import Floats, TokenChunk

__all__ = ["Arm"]

COUNTED: Final = {"zscore_mean": "block_sum", "bit_zscore": "block_ones"}
"""By amplifier whose statistic is the z-score of a count, the column of that count."""

STANDARD: Final = frozenset(("zscore_mean", "bit_zscore", "random_walk", "exact_sum", "exact_bits"))
"""Amplifiers whose statistic has mean 0 and variance 1 for fair bits."""

LATENCY_EDGES_MS: Final = np.logspace(-3, 5, 401)
"""Edges of the cells in which latencies of draws are counted."""

ENTROPY_EDGES: Final = (0.25, 1.0, 2.5)
TEMPERATURE_EDGES: Final = (0.5, 0.8, 1.0, 1.3)


class Arm:
    """The tokens of one arm, added up chunk by chunk in the order of time.

    Args:
        key: What they have in common.
        tau: Scale of the shifts that the e-process bets on.
        alpha: Its error probability.
        baseline_blocks: Blocks of the baseline that u refers to; ``None`` if that is not known.
        lattice_step: Distance between neighbouring values of u, NaN if it is not known.
        block_tokens: Tokens per block of the block means.
        exploratory: Whether splits are added up, too.
    """

    def __init__(
        self,
        key: ArmKey,
        *,
        tau: float,
        alpha: float,
        baseline_blocks: int | None,
        lattice_step: float,
        block_tokens: int,
        exploratory: bool,
    ) -> None:
        self.key = key
        self.baseline_blocks = baseline_blocks
        law = None if key.baseline or key.drafted else _law(key)
        self.count = COUNTED[key.amplifier or ""] if law is not None else ""
        """Column of the count whose exact law is tested; empty if none is."""
        self.is_standard = key.amplifier in STANDARD and not (key.baseline or key.drafted)
        """Whether the statistic is a standard score under the law of ideal bytes."""
        self.of_u = Battery(
            "u",
            law=law,
            visibility=None if law is not None else _visibility(lattice_step, baseline_blocks),
            baseline_blocks=baseline_blocks,
            block_tokens=block_tokens,
        )
        self.of_statistic = Battery(
            "statistic", law=law, baseline_blocks=baseline_blocks, block_tokens=block_tokens
        )
        self.bits = BlockBits()
        self.sensitivity = Sensitivity()
        self.suspects = Sensitivity()
        """The same with and without tokens of suspect bytes."""
        self.evidence = EProcess(tau=tau, alpha=alpha)
        self.path = SumPath()
        self.score_file = ScoreFile()
        self.sessions = SessionMeans()
        self.answers = AnswerLengths()
        self.latencies = np.zeros(len(LATENCY_EDGES_MS) + 1, np.int64)
        """Number of draws by latency, counted once for every draw of a chunk."""
        self.tokens = self.fallback = self.suspect = self.unknown = 0
        self.splits = (
            {
                "entropy": SplitMeans(ENTROPY_EDGES, by="entropy"),
                "temperature": SplitMeans(TEMPERATURE_EDGES, by="temperature"),
                "previous_rank": SplitMeans((0.5, 1.5, 5.5, 20.5), by="previous_rank"),
            }
            if exploratory
            else {}
        )

    def scores(self, tokens: TokenChunk) -> Floats:
        """Returns scores with mean 0 and variance 1 under the null hypothesis.

        The statistic where its law is known, otherwise u, standardised.
        """
        if self.is_standard:
            return tokens.statistic
        scores: Floats = (tokens.u - 0.5) * math.sqrt(12.0)
        return scores

    def add(self, tokens: TokenChunk, session: str) -> None:
        """Adds tokens in the order of time.

        Args:
            tokens: The tokens.
            session: Column of the sessions.
        """
        counts = getattr(tokens, self.count) if self.count else None
        self.of_u.add(tokens.u, counts)
        self.of_statistic.add(tokens.statistic, counts)
        if self.key.block_bytes:
            self.bits.add(tokens.block_ones, tokens.block_sum, tokens.block_bytes)
        scores = self.scores(tokens)
        suspect = tokens.suspect
        self.sensitivity.add(scores, tokens.fallback)
        self.suspects.add(scores, suspect)
        self.evidence.add(scores)
        self.path.add(scores)
        self.score_file.add(scores)
        self.sessions.add(scores, getattr(tokens, session))
        self.answers.add(tokens.sequence)
        self.tokens += len(tokens)
        self.fallback += int(tokens.fallback.sum())
        self.suspect += int(suspect.sum())
        self.unknown += int((tokens.emitted < 0).sum())
        self._add_latencies(tokens)
        if self.splits:
            self._add_splits(tokens, scores)

    def _add_latencies(self, tokens: TokenChunk) -> None:
        new = np.ones(len(tokens), np.bool_)
        new[1:] = np.diff(tokens.received_ns) != 0
        latency_ms = (tokens.received_ns[new] - tokens.request_ns[new]) / 1e6
        cells = np.searchsorted(LATENCY_EDGES_MS, latency_ms)
        self.latencies += np.bincount(cells, minlength=len(self.latencies))

    def _add_splits(self, tokens: TokenChunk, scores: Floats) -> None:
        for name, column in (
            ("entropy", tokens.entropy_nats),
            ("temperature", tokens.temperature),
        ):
            known = np.isfinite(column)
            self.splits[name].add(scores[known], column[known])
        order = np.lexsort((tokens.position, tokens.sequence))
        sequence, position = tokens.sequence[order], tokens.position[order]
        follows = (np.diff(sequence) == 0) & (np.diff(position) == 1)
        ranks = tokens.rank[order][:-1][follows].astype(np.float64)
        self.splits["previous_rank"].add(scores[order][1:][follows], ranks)

    def latency_ms(self, share: float) -> float:
        """Returns the latency that a share of the draws does not exceed; NaN without draws."""
        total = int(self.latencies.sum())
        if not total or not self.latencies[1:].any():
            return math.nan
        cell = int(np.searchsorted(np.cumsum(self.latencies), share * total))
        return float(LATENCY_EDGES_MS[min(cell, len(LATENCY_EDGES_MS) - 1)])


def _visibility(lattice_step: float, baseline_blocks: int | None) -> Visibility | None:
    """Returns how far the law of u is from uniform: half a step, and what a baseline adds.

    An empirical law of N blocks is 0.87 / sqrt(N) from its own on average (the mean of Kolmogorov's
    distribution).
    """
    distance = 0.0 if math.isnan(lattice_step) else lattice_step / 2.0
    if baseline_blocks:
        distance += 0.87 / math.sqrt(baseline_blocks)
    return Visibility(distance) if distance > 0.0 else None


def _law(key: ArmKey) -> LatticeLaw | None:
    """Returns the exact law of the count behind the statistic, where there is one."""
    if not key.block_bytes:
        return None
    if key.amplifier == "zscore_mean":
        return LatticeLaw.of_bytes(key.block_bytes)
    return LatticeLaw.of_bits(key.block_bytes) if key.amplifier == "bit_zscore" else None
