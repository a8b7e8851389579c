# SPDX-License-Identifier: Apache-2.0
"""Laws in compiled loops are those of the sorted reference, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from qr_sampler import ReferenceSelector, Rows
from qr_sampler.sampling.planner import StepPlanner
from qr_sampler.selection.fast.bins import FEW
from qr_sampler.testing.crowded_rows import CROWDED_KINDS, crowded_row
from qr_sampler.testing.law_contract import check_same_laws
from qr_sampler.testing.selection_cases import (
    LOGIT_KINDS,
    random_logits,
    random_parameters,
)

pytest.importorskip("numba", reason="needs the extra numba")

from qr_sampler_accel import host_selector


@pytest.mark.parametrize("kind", sorted({*LOGIT_KINDS, *CROWDED_KINDS}))
def test_laws_are_those_of_the_reference(kind: str) -> None:
    rng = np.random.default_rng([*kind.encode(), 2])
    make = random_logits if kind in LOGIT_KINDS else crowded_row
    for size in (1, 2, 3, 130, FEW, FEW + 1, 20_000):
        logits = np.stack([make(rng, kind, size) for _ in range(3)])
        parameters = [
            random_parameters(rng, size).model_copy(
                update={"fixed_temperature": float(rng.choice([0.3, 0.7, 1.0, 20.0]))}
            )
            for _ in logits
        ]
        laws = [
            selector.laws(StepPlanner(selector).prepare(logits, Rows(parameters)).selection)
            for selector in (host_selector(), ReferenceSelector())
        ]
        check_same_laws(laws[0], laws[1], rng)
