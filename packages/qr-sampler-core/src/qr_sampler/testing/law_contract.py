# SPDX-License-Identifier: Apache-2.0
"""What the laws of a selector have to share with those of :class:`~qr_sampler.ReferenceSelector`.

Everything, to the last bit.
"""

from __future__ import annotations

import numpy as np

from qr_sampler.arrays import FloatArray, IndexArray
from qr_sampler.selection.laws import Residual, RowLaws, SparseLaw

__all__ = ["check_same_laws", "random_sparse_law"]

EDGES = (0.0, 2.0**-53, 0.5, 1.0 - 2.0**-53)
"""Uniform numbers at which rounding would show."""


def random_sparse_law(rng: np.random.Generator, p: FloatArray) -> SparseLaw:
    """Returns a law that has something to do with *p*: much, little, or nothing at all.

    Args:
        rng: Where the randomness comes from.
        p: Shape ``(V,)``, probabilities.
    """
    count = int(rng.integers(0, min(p.size, 40) + 1))
    likely = np.argsort(-p, kind="stable")[:count]
    token_ids = np.sort(likely if rng.random() < 0.7 else rng.permutation(p.size)[:count])
    weights = p[token_ids] * rng.uniform(0.5, 2.0, count) + rng.choice([0.0, 1e-3, 1e-12])
    tail = float(rng.choice([0.0, 1e-9, 0.1])) if count else 1.0
    others = p.size - count
    total = float(weights.sum()) + tail * (others > 0)
    if total <= 0.0:
        return SparseLaw(token_ids, np.full(count, 1.0 / max(count, 1)), 0.0)
    return SparseLaw(token_ids, weights / total, tail / others / total if others else 0.0)


def check_same_laws(found: RowLaws, right: RowLaws, rng: np.random.Generator) -> None:
    """Checks that two selectors have the same laws of the same rows.

    Args:
        found: The laws to be checked.
        right: Those of the reference.
        rng: Chooses tokens, numbers and other laws.

    Raises:
        AssertionError: When anything differs.
    """
    np.testing.assert_array_equal(found.candidates, right.candidates)
    for row in range(right.candidates.size):
        p = right.dense(row)
        np.testing.assert_array_equal(found.dense(row), p)
        tokens = _telling_tokens(rng, p)
        rows = [row] * len(tokens)
        np.testing.assert_array_equal(found.probabilities(rows, tokens), p[tokens])
        np.testing.assert_array_equal(found.ranks(rows, tokens), right.ranks(rows, tokens))
    _check_residuals(found, right, rng)


def _telling_tokens(rng: np.random.Generator, p: FloatArray) -> list[int]:
    """Returns some tokens, those next to the ends of truncation among them."""
    kept = np.flatnonzero(p)
    by_mass = kept[np.argsort(-p[kept], kind="stable")]
    chosen: list[IndexArray] = [by_mass[:2], by_mass[-3:], rng.integers(0, p.size, 3)]
    edges = {*np.concatenate(chosen).tolist(), 0, p.size - 1}
    around = {min(max(token + step, 0), p.size - 1) for token in edges for step in (-1, 0, 1)}
    return sorted(around)


def _check_residuals(found: RowLaws, right: RowLaws, rng: np.random.Generator) -> None:
    residuals: list[Residual] = []
    for row in range(right.candidates.size):
        law = random_sparse_law(rng, right.dense(row))
        weight = float(rng.choice([1.0, rng.random(), 1e-300]))
        residuals += [Residual(row), Residual(row, 1.0, law), Residual(row, weight, law)]
    residuals = [residuals[place] for place in rng.permutation(len(residuals))]
    np.testing.assert_array_equal(found.remainders(residuals), right.remainders(residuals))
    for draw in (*EDGES, None):
        u = np.full(len(residuals), draw) if draw is not None else rng.random(len(residuals))
        np.testing.assert_array_equal(found.select(residuals, u), right.select(residuals, u))
