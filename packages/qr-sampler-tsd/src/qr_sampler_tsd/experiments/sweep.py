# SPDX-License-Identifier: Apache-2.0
"""One experiment over a grid of vocabularies, head sizes, temperatures, block lengths and seeds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from qr_sampler_tsd.experiments.m0 import M0Settings, run_m0
from qr_sampler_tsd.experiments.m1 import M1Settings, run_m1
from qr_sampler_tsd.experiments.results import ExperimentResult
from qr_sampler_tsd.experiments.runner import Equipment

__all__ = ["sweep"]


def sweep(
    base: M0Settings | M1Settings,
    equip: Callable[[M0Settings | M1Settings], Equipment],
    *,
    vocab_sizes: Sequence[int] = (1000,),
    ks: Sequence[int] = (64,),
    taus: Sequence[float] = (1.0,),
    lengths: Sequence[int] = (1,),
    seeds: Sequence[int] = (7,),
) -> Iterator[ExperimentResult]:
    """Yields one result per point of the grid, the last list varying fastest.

    Args:
        base: All other settings, and by its type the experiment.
        equip: Called for each run, since a run counts the uniforms that it draws.
        vocab_sizes: Numbers of tokens; a corpus has its own.
        ks: Head sizes.
        taus: Temperatures.
        lengths: Drafts per pass.
        seeds: Seeds of the target.

    Raises:
        TargetError: When the settings make no target.
        PsiError: When they make no payload.
        ExperimentError: When a value is out of range.
    """
    grid = itertools.product(vocab_sizes, ks, taus, lengths, seeds)
    for vocab_size, k, tau, length, seed in grid:
        settings = replace(base, vocab_size=vocab_size, k=k, tau=tau, length=length, seed=seed)
        if isinstance(settings, M1Settings):
            yield run_m1(settings, equip(settings))
        else:
            yield run_m0(settings, equip(settings))
