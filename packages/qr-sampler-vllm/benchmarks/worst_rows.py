# SPDX-License-Identifier: Apache-2.0
"""The slowest rows that a search has found, against vLLM's sampler on a usual row.

The search is ``packages/qr-sampler-accel/campaigns/worst_rows.py``. What a row costs depends on how
its logits crowd, not on their values, so that a few kinds of rows stand for all.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch

from benchmarks.contenders import FIXED_1, Batch, PluginStep, VLLMSampler
from benchmarks.logit_sets import VOCAB_SIZE, logit_set
from benchmarks.sources import PreparedSource
from benchmarks.timing import Budget, Contender, compare
from qr_sampler.testing.crowded_rows import crowded_row

__all__ = ["measure_worst_rows"]

KINDS: Final = ("denormal", "nested clusters", "periodic", "small spread", "within one ulp")
TYPICAL_P: Final = {"typical_p": 0.9}
TEMPERATURE: Final = 5.0
"""Another pass over the row than at temperature 1."""

SEED: Final = 20_262


def measure_worst_rows(budget: Budget) -> tuple[list[float], list[float]]:
    """Returns, for each row, two numbers.

    The ratio of a step without a filter to vLLM's sampler, and the milliseconds of a step with
    typical-p.
    """
    ratios, typical_ms = [], []
    for kind in KINDS:
        row = crowded_row(np.random.default_rng(SEED), kind, VOCAB_SIZE)
        batch = Batch(torch.from_numpy(row[np.newaxis]), 1)
        native = Batch(logit_set("typical", "float32", 1).rows, 1)
        contenders = [
            native.contender("native", VLLMSampler(1)),
            _contender(batch, "plain", {}),
            _contender(batch, "typical", TYPICAL_P),
        ]
        timings = compare(contenders, budget)
        ratios.append(timings.ratio("plain", "native"))
        typical_ms.append(timings.microseconds("typical") / 1e3)
    return ratios, typical_ms


def _contender(batch: Batch, name: str, filters: dict[str, Any]) -> Contender:
    wishes = {"fixed_temperature": TEMPERATURE, **filters}
    parameters = FIXED_1.model_copy(update=wishes)
    return batch.contender(name, PluginStep(parameters, batch.size, PreparedSource()))
