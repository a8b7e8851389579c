# SPDX-License-Identifier: Apache-2.0
"""One experiment over a grid of head sizes, temperatures, block lengths and seeds."""

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
    ks: Sequence[int] = (64,),
    taus: Sequence[float] = (1.0,),
    lengths: Sequence[int] = (1,),
    seeds: Sequence[int] = (7,),
) -> Iterator[ExperimentResult]:
    """Yields one result per point of the grid, the last list varying fastest.

    Args:
        base: All other settings, and by its type the experiment.
        equip: Called for each run, since a run counts the uniforms that it draws.
        ks: Head sizes.
        taus: Temperatures.
        lengths: Drafts per pass.
        seeds: Seeds of the target.

    Raises:
        TargetError: When the settings make no target.
        PsiError: When they make no payload.
        ExperimentError: When a value is out of range.
    """
    for k, tau, length, seed in itertools.product(ks, taus, lengths, seeds):
        settings = replace(base, k=k, tau=tau, length=length, seed=seed)
        if isinstance(settings, M1Settings):
            yield run_m1(settings, equip(settings))
        else:
            yield run_m0(settings, equip(settings))
