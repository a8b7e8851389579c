# SPDX-License-Identifier: Apache-2.0
"""M1: a bigram, of a corpus or synthetic, where every context has its own payload."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qr_sampler_tsd.experiments.results import ExperimentResult
from qr_sampler_tsd.experiments.runner import Equipment, run_experiment
from qr_sampler_tsd.experiments.settings import ExperimentSettings
from qr_sampler_tsd.targets import BigramTable, SyntheticBigram, Target, make_bigram_from_corpus

__all__ = ["M1Settings", "run_m1"]

_TABLE_ENTRIES = 2**21
"""Most entries of all rows together, unless more contexts are asked for: 16 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class M1Settings(ExperimentSettings):
    """Settings of M1."""

    corpus: Path | None = None
    """A UTF-8 text, for the bigram of its characters; ``None`` for a synthetic one."""
    laplace: float = 1.0
    """Added to every count of the corpus."""
    vocab_size: int = 256
    """Number of tokens of the synthetic bigram, V."""
    c: float = 50.0
    """What its rows have in common."""
    contexts: int | None = None
    """Different rows of it, C; ``None`` for as many as V, or as fit 16 MiB."""

    def target(self) -> Target:
        """Returns the target.

        Raises:
            TargetError: When a value is out of range, or the corpus cannot be read.
        """
        if self.corpus is not None:
            return BigramTable(make_bigram_from_corpus(self.corpus, self.laplace).p)
        contexts = self.contexts
        if contexts is None and self.vocab_size > 0:
            contexts = max(1, min(self.vocab_size, _TABLE_ENTRIES // self.vocab_size))
        return SyntheticBigram(self.vocab_size, self.seed, self.c, contexts)


def run_m1(settings: M1Settings, equipment: Equipment) -> ExperimentResult:
    """Runs M1.

    Args:
        settings: Of the run.
        equipment: Uniforms, unit and where reports go.

    Raises:
        TargetError: When the settings make no target.
        PsiError: When they make no payload.
    """
    return run_experiment("M1", settings.target(), settings, equipment)
