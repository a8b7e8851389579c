# SPDX-License-Identifier: Apache-2.0
"""What proposers take over from a model: distributions as examples, and bigram rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler_tsd import craft_relative_psi
from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.errors import ProposerError, PsiError
from qr_sampler_tsd.proposers import BigramProposer
from qr_sampler_tsd.train import BigramDistiller, Examples
from qr_sampler_tsd.train.distillation import mean_law

V = 30
ROWS = np.random.default_rng(1).dirichlet(np.full(V, 0.4), size=V) * (1 - 1e-6) + 1e-6 / V


def bigram_examples(tokens: list[int], *, kept: int = V, context_tokens: int = 1) -> Examples:
    """What a model that is the bigram ROWS gives along *tokens*."""
    return Examples.from_logits(
        tokens, np.log(ROWS[tokens]), context_tokens=context_tokens, kept=kept
    )


def softmax64(logits: FloatArray) -> FloatArray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 5), min_size=1, max_size=9),
    width=st.integers(1, 5),
    kept=st.integers(1, 9),
    temperature=st.floats(0.3, 3),
)
def test_examples_hold_the_best_of_each_law(
    tokens: list[int], width: int, kept: int, temperature: float
) -> None:
    logits = np.random.default_rng(len(tokens)).normal(size=(len(tokens), 6)) * 3
    examples = Examples.from_logits(
        tokens, logits, context_tokens=width, kept=kept, temperature=temperature
    )
    laws = softmax64(logits / temperature)
    assert len(examples) == len(tokens)
    for place, dense in enumerate(examples.dense()):
        earlier = [tokens[place - back] if back <= place else -1 for back in range(width)]
        assert examples.contexts[place].tolist() == earlier
        best = np.argsort(-laws[place])[: min(kept, 6)]
        assert sorted(examples.ids[place]) == sorted(best)
        expected = np.full(6, (1 - laws[place][best].sum()) / max(6 - kept, 1))
        expected[best] = laws[place][best]
        assert np.allclose(dense, expected, atol=1e-5)


def test_examples_are_joined() -> None:
    first, second = bigram_examples([1, 2, 3]), bigram_examples([4, 5])
    both = Examples.joined([first, second])
    assert np.array_equal(both.dense(), np.concatenate([first.dense(), second.dense()]))
    assert both.contexts[:, 0].tolist() == [1, 2, 3, 4, 5]
    # A sequence starts afresh.
    wide = Examples.joined([bigram_examples(t, context_tokens=2) for t in ([1, 2], [3, 4])])
    assert wide.contexts.tolist() == [[1, -1], [2, 1], [3, -1], [4, 3]]
    for parts in ([], [first, bigram_examples([1], kept=4)]):
        with pytest.raises(ProposerError, match="equal C, M and V"):
            Examples.joined(parts)


@pytest.mark.parametrize(
    ("tokens", "logits", "options", "words"),
    [
        ([1], np.zeros((2, 3)), {}, "shape"),
        ([[1]], np.zeros((1, 3)), {}, "shape"),
        ([], np.zeros((0, 3)), {}, "shape"),
        ([3], np.zeros((1, 3)), {}, "0 to 2"),
        ([0.5], np.zeros((1, 3)), {}, "0 to 2"),
        ([1], [[0.0, np.nan, 0.0]], {}, "finite maximum"),
        ([1], [[0.0, np.inf, 0.0]], {}, "finite maximum"),
        ([1], np.full((1, 3), -np.inf), {}, "finite maximum"),
        ([1], np.zeros((1, 3)), {"kept": 0}, "kept=0"),
        ([1], np.zeros((1, 3)), {"context_tokens": 0}, "context_tokens=0"),
        ([1], np.zeros((1, 3)), {"temperature": 0.0}, "temperature=0"),
    ],
)
def test_malformed_examples_are_refused(
    tokens: list[int], logits: FloatArray, options: dict[str, float], words: str
) -> None:
    with pytest.raises(ProposerError, match=words):
        Examples.from_logits(tokens, logits, **{"context_tokens": 1, "kept": 2, **options})  # type: ignore[arg-type]


def test_masked_logits_are_probability_zero() -> None:
    examples = Examples.from_logits([0], [[0.0, -np.inf, 0.0]], context_tokens=1, kept=3)
    assert examples.dense()[0] == pytest.approx([0.5, 0.0, 0.5])


def variation(p: FloatArray, q: FloatArray) -> float:
    return 0.5 * float(np.abs(p - q).sum())


def rounding_bound(row: FloatArray) -> float:
    """TV that 8-bit codes cost: each logarithm is half a step off, and that of the sum as well.

    2e-6 more for distributions that went through float32.
    """
    step = (np.log(row).max() - np.log(row).min()) / 255
    return float(np.expm1(step)) / 2 + 2e-6


def test_a_known_bigram_model_is_recovered() -> None:
    """To the rounding of payloads, from a text in which every token occurs."""
    text = np.random.default_rng(4).permutation(np.repeat(np.arange(V), 3)).tolist()
    distiller = BigramDistiller(V)
    for begin in range(0, len(text), 17):
        distiller.add(bigram_examples(text[begin : begin + 17], context_tokens=2))
    table = distiller.table(V)
    assert np.count_nonzero(table.rows) == V
    assert distiller.counts.tolist() == [3] * V
    for token in range(V):
        assert distiller.law(token) == pytest.approx(ROWS[token], abs=1e-6)
        law = table.psi(table.start([token])).law().probs()
        assert variation(law, ROWS[token]) < rounding_bound(ROWS[token]) < 0.05
    # Another row would be far outside the bound.
    assert min(variation(ROWS[0], row) for row in ROWS[1:]) > 0.3


@pytest.mark.parametrize("k", [1, 5, 12])
def test_a_short_head_is_the_best_of_the_row(k: int) -> None:
    distiller = BigramDistiller(V)
    distiller.add(bigram_examples(list(range(V))))
    table = distiller.table(k)
    for token in range(V):
        psi, best = table.psi(token), craft_relative_psi(ROWS[token], k)
        assert psi.ids.tolist() == best.ids.tolist()
        assert psi.law().tail_mass == pytest.approx(best.law().tail_mass, abs=1e-5)


def test_a_row_is_the_mean_of_the_laws_that_followed() -> None:
    """The same last token in two contexts."""
    laws = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
    distiller = BigramDistiller(3)
    distiller.add(Examples.from_logits([1, 1, 2], np.log(laws), context_tokens=1, kept=3))
    assert distiller.law(1) == pytest.approx([0.4, 0.2, 0.4])
    assert distiller.law(2) == pytest.approx(laws[2])
    assert distiller.law(None) == pytest.approx(laws.mean(axis=0))


def test_what_examples_leave_open_is_spread_evenly() -> None:
    row = np.array([0.5, 0.2, 0.1, 0.1, 0.1])
    distiller = BigramDistiller(5)
    for _ in range(4):
        distiller.add(Examples.from_logits([2], np.log(row)[None], context_tokens=1, kept=2))
    assert distiller.law(2) == pytest.approx(row)
    assert mean_law(
        Examples.from_logits([2], np.log(row)[None], context_tokens=1, kept=2)
    ) == pytest.approx([0.56, 0.26, 0.06, 0.06, 0.06])


def test_unseen_tokens_get_the_unigram() -> None:
    distiller = BigramDistiller(V)
    distiller.add(bigram_examples([3, 4, 3]))
    table = distiller.table(6)
    unigram = craft_relative_psi(distiller.law(None), 6)
    assert [token for token in range(V) if table.psi(token) != unigram] == [3, 4]
    assert isinstance(table, BigramProposer)


def test_distillers_refuse_what_they_cannot_use() -> None:
    distiller = BigramDistiller(V + 1)
    with pytest.raises(ProposerError, match="30 tokens for a table of 31"):
        distiller.add(bigram_examples([1]))
    with pytest.raises(ProposerError, match="no law was added"):
        distiller.table(3)
    distiller = BigramDistiller(V)
    distiller.add(bigram_examples([1]))
    with pytest.raises(ProposerError, match="after the token 2"):
        distiller.law(2)
    with pytest.raises(PsiError, match="k=0"):
        distiller.table(0)
