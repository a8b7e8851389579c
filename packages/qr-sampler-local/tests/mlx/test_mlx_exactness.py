# SPDX-License-Identifier: Apache-2.0
"""MLX-LM's own logits and the recorded numbers give the recorded tokens, and nothing came early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qr_sampler.testing import WitnessSource

pytest.importorskip("mlx_lm", reason="MLX-LM is not installed")
pytest.importorskip("scipy", reason="SciPy is not installed")

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate
from scipy import special

PROMPT = (40, 445, 79, 418)

Watch = Callable[..., Any]
Loaded = tuple[Any, Any]


def is_computed(array: mx.array) -> bool:
    """Whether an array of MLX has its values, or only the way to compute them.

    Computing them takes memory; in a thread that has no streams, it fails.
    """
    before = mx.get_active_memory()
    try:
        mx.eval(array)
    except RuntimeError:
        return False
    return bool(mx.get_active_memory() == before)


class EagerToKnow(WitnessSource):
    """Looks, whenever it is asked for bytes, whether the logits have been computed."""

    def __init__(self) -> None:
        super().__init__()
        self.logits: mx.array | None = None
        self.found: list[bool] = []

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* bytes."""
        assert self.logits is not None
        self.found.append(is_computed(self.logits))
        return super().get_random_bytes(n)


def test_nothing_is_drawn_before_lazy_logits_are_computed(watch: Watch, loaded: Loaded) -> None:
    source = EagerToKnow()
    watched = watch(source)

    def keep(tokens: mx.array, logits: mx.array) -> mx.array:
        source.logits = logits * 1.0
        return source.logits

    with watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=6) as sequence:
        generate(*loaded, list(PROMPT), **sequence.arguments([keep]))
    assert source.found == [True] * 6


def test_an_array_that_is_not_computed_is_told_from_one_that_is() -> None:
    array = mx.exp(mx.zeros((1, 2048)))
    assert not is_computed(array)
    assert is_computed(array)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def test_tokens_follow_from_the_logits_and_the_recorded_numbers(
    watch: Watch, loaded: Loaded, dtype: Any
) -> None:
    temperature, top_p, top_k = 0.9, 0.8, 40
    watched = watch()
    logits: list[Any] = []

    def keep(tokens: mx.array, row: mx.array) -> mx.array:
        row = row.astype(dtype)
        logits.append(np.array(row.astype(mx.float32))[0].astype(np.float64))
        return row

    with watched.sampler.sequence(
        PROMPT,
        end_tokens=(),
        max_tokens=40,
        temperature_strategy="fixed",
        fixed_temperature=temperature,
        top_p=top_p,
        top_k=top_k,
    ) as sequence:
        generate(*loaded, list(PROMPT), **sequence.arguments([keep]))
    records = watched.records("token")
    assert [record["token_id"] for record in records] == sequence.tokens
    assert len({record["rank"] for record in records}) > 5
    for record, row in zip(records, logits, strict=False):
        assert record["token_id"] in chosen_by(row, record["u"], temperature, top_k, top_p)


def chosen_by(row: Any, u: float, temperature: float, top_k: int, top_p: float) -> set[int]:
    """Returns the tokens that *u* may choose, two where it is within 1e-9 of their border."""
    order = np.lexsort((np.arange(len(row)), -row))[:top_k]
    masses = special.softmax(row[order] / temperature)
    kept = int(np.searchsorted(np.cumsum(masses), top_p)) + 1
    borders = np.cumsum(masses[:kept]) / masses[:kept].sum()
    places = np.searchsorted(borders, [u - 1e-9, u + 1e-9]).clip(0, kept - 1)
    return {int(order[place]) for place in places}


def test_the_oracle_tells_other_tokens_apart() -> None:
    row = np.log(np.array([0.1, 0.6, 0.3]))
    assert chosen_by(row, 0.5, 1.0, 3, 1.0) == {1}
    assert chosen_by(row, 0.7, 1.0, 3, 1.0) == {2}
    assert chosen_by(row, 0.95, 1.0, 3, 0.85) == {2}
    assert chosen_by(row, 0.95, 1.0, 3, 1.0) == {0}


def test_log_probabilities_are_what_the_page_says(loaded: Loaded) -> None:
    """MLX-LM subtracts their logarithmic sum from logits in the type of the logits."""
    row = loaded[0](mx.array([PROMPT]))[:, -1, :]
    distances = {}
    for dtype in (mx.float32, mx.float16, mx.bfloat16):
        given = row.astype(dtype)
        shifted = given - mx.logsumexp(given, axis=-1, keepdims=True)
        before, after = (
            special.softmax(np.array(part.astype(mx.float32)).astype(np.float64))
            for part in (given, shifted)
        )
        distances[dtype] = float(np.abs(before - after).sum() / 2)
    assert distances[mx.float32] < 1e-6
    assert 1e-4 < distances[mx.float16] < distances[mx.bfloat16] < 1e-2
