# SPDX-License-Identifier: Apache-2.0
"""Are as many draws thrown away in one arm as in another? Selection afterwards shows there."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.results import TestResult

__all__ = ["discards_test"]

_EXACT = 10_000
"""Up to so many rows two arms are compared by Fisher's exact test."""


def discards_test(discarded: ArrayLike, emitted: ArrayLike) -> TestResult:
    """Returns the test of equal shares of discarded rows in all arms.

    Fisher's exact test for two arms of up to 10,000 rows together, otherwise Pearson's chi-square
    with one degree of freedom fewer than there are arms.

    Args:
        discarded: Rows drawn for and then thrown away, per arm. Shape ``(K,)``.
        emitted: Rows that became tokens, per arm. Shape ``(K,)``.

    Raises:
        ConfigError: When there are fewer than two arms, or a count is negative or an arm empty.
    """
    table = np.array([discarded, emitted], dtype=np.int64)
    if table.ndim != 2 or table.shape[1] < 2 or table.min() < 0 or not table.sum(axis=0).all():
        raise ConfigError(
            f"discarded {table[0].tolist()}, emitted {table[1].tolist()}: give counts of at least "
            "two arms that have rows"
        )
    shares = table[0] / table.sum(axis=0)
    note = "Shares discarded: " + ", ".join(f"{share:.3%}" for share in shares) + "."
    if not table.sum(axis=1).all():
        statistic, p_value = 0.0, 1.0
    elif table.shape[1] == 2 and table.sum() <= _EXACT:
        found = stats.fisher_exact(table)
        statistic, p_value = float(found.statistic), float(found.pvalue)
    else:
        chi_square = stats.chi2_contingency(table, correction=False)
        statistic, p_value = float(chi_square.statistic), float(chi_square.pvalue)
    return TestResult(
        name="discards",
        about="rows",
        statistic=statistic,
        p_value=p_value,
        n=int(table.sum()),
        effect=float(shares.max() - shares.min()),
        effect_name="largest share discarded - smallest",
        notes=(note,),
    )
