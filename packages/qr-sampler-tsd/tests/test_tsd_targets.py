# SPDX-License-Identifier: Apache-2.0
"""Targets: distributions that sum to 1, the same for the same seed, right by plain Python."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler_tsd.errors import TargetError
from qr_sampler_tsd.targets import (
    BigramTable,
    CategoricalTarget,
    SyntheticBigram,
    build_vocab_from_corpus,
    entropy,
    make_bigram_from_corpus,
    make_bigram_synthetic,
    make_p,
    make_p_zipf,
    row_logprobs,
)


def test_dirichlet() -> None:
    p, log_p = make_p(1000, seed=7)
    assert p.sum() == pytest.approx(1)
    assert (p > 0).all()
    assert np.array_equal(log_p, np.log(p))
    assert np.array_equal(p, np.random.Generator(np.random.PCG64(7)).dirichlet(np.ones(1000)))
    assert not np.array_equal(p, make_p(1000, seed=8)[0])
    # Dirichlet(1): the entropy is log V - 1 + gamma on average, with a deviation of order V^-1/2.
    assert entropy(p) == pytest.approx(math.log(1000) - 1 + 0.5772, abs=0.15)


def test_zipf() -> None:
    p, log_p = make_p_zipf(4, alpha=2.0)
    masses = [1, 1 / 4, 1 / 9, 1 / 16]
    assert p == pytest.approx([mass / sum(masses) for mass in masses])
    assert np.array_equal(log_p, np.log(p))
    shuffled, _ = make_p_zipf(1000, seed=3)
    assert not np.array_equal(shuffled, make_p_zipf(1000)[0])
    assert np.array_equal(np.sort(shuffled), np.sort(make_p_zipf(1000)[0]))


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.inf, math.nan])
def test_bad_exponents(alpha: float) -> None:
    with pytest.raises(TargetError, match="alpha"):
        make_p_zipf(10, alpha)


def test_no_vocabulary() -> None:
    with pytest.raises(TargetError, match="vocab_size=0"):
        make_p(0, seed=1)


def test_entropy() -> None:
    assert entropy(np.array([0.5, 0.5, 0.0])) == pytest.approx(math.log(2))
    assert entropy(np.array([1.0])) == 0


def test_a_law_without_context() -> None:
    target = CategoricalTarget(make_p(5, 1)[0])
    assert (target.vocab_size, target.contexts) == (5, 1)
    assert {target.context_after(token) for token in range(5)} == {0}


def test_corpus(tmp_path: Path) -> None:
    path = tmp_path / "text"
    text = "abba\r\nab ä"
    path.write_bytes(text.encode())
    stoi, itos = build_vocab_from_corpus(path)
    assert itos == ("\n", "\r", " ", "a", "b", "ä")
    assert [itos[stoi[character]] for character in text] == list(text)
    bigram = make_bigram_from_corpus(path, laplace=0.5)
    assert bigram.vocabulary == (stoi, itos)
    pairs = Counter(text[i : i + 2] for i in range(len(text) - 1))
    for first in itos:
        total = sum(pairs[first + second] + 0.5 for second in itos)
        expected = [(pairs[first + second] + 0.5) / total for second in itos]
        assert bigram.p[stoi[first]] == pytest.approx(expected)
    assert np.shares_memory(row_logprobs(bigram.log_p, 2), bigram.log_p)
    assert row_logprobs(bigram.log_p, 2) == pytest.approx(np.log(bigram.p[2]))


def test_unusable_corpora(tmp_path: Path) -> None:
    path = tmp_path / "text"
    with pytest.raises(TargetError, match="cannot be read"):
        build_vocab_from_corpus(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(TargetError, match="UTF-8"):
        build_vocab_from_corpus(path)
    path.write_text("a", "utf-8")
    with pytest.raises(TargetError, match="1 characters"):
        make_bigram_from_corpus(path)
    path.write_text("ab", "utf-8")
    with pytest.raises(TargetError, match="nothing follows 'b'"):
        make_bigram_from_corpus(path, laplace=0)
    with pytest.raises(TargetError, match="laplace=-1"):
        make_bigram_from_corpus(path, laplace=-1)


@given(st.integers(1, 6), st.integers(0, 2**40), st.floats(0, 1000))
def test_synthetic_tables(size: int, seed: int, c: float) -> None:
    p, log_p = make_bigram_synthetic(size, seed, c)
    assert p.shape == (size, size)
    assert p.sum(axis=1) == pytest.approx(np.ones(size))
    assert np.exp(log_p) == pytest.approx(p)


def test_rows_do_not_depend_on_how_many_there_are() -> None:
    table, _ = make_bigram_synthetic(50, seed=7)
    few = SyntheticBigram(50, seed=7, contexts=8)
    for context in (5, 0, 5, 7):
        assert np.array_equal(few.row(context), table[context])
    assert few.context_after(43) == 3
    assert not np.array_equal(table[0], table[1])


def test_rows_share_what_c_says() -> None:
    # With a large c all rows come close to u.
    alike, _ = make_bigram_synthetic(20, seed=7, c=1e6)
    apart, _ = make_bigram_synthetic(20, seed=7, c=0)
    assert np.abs(alike - alike.mean(axis=0)).sum(axis=1).max() < 0.05
    assert np.abs(apart - apart.mean(axis=0)).sum(axis=1).max() > 0.5


def test_bad_synthetic_bigrams() -> None:
    for arguments, message in (
        ({"contexts": 0}, "contexts=0"),
        ({"contexts": 11}, "contexts=11"),
        ({"c": -1.0}, "c=-1"),
        ({"c": math.nan}, "c=nan"),
    ):
        with pytest.raises(TargetError, match=message) as caught:
            SyntheticBigram(10, **arguments)  # type: ignore[arg-type]
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_table_is_square() -> None:
    with pytest.raises(TargetError, match=r"\(2, 3\)"):
        BigramTable(np.full((2, 3), 1 / 3))
    table = BigramTable(np.full((2, 2), 0.5))
    assert (table.vocab_size, table.contexts, table.context_after(1)) == (2, 2, 1)
