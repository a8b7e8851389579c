# SPDX-License-Identifier: Apache-2.0
"""Tokens left out: rank and select, and masks as bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler_tsd import PsiError
from qr_sampler_tsd.exclusion import excluded_from_bits, excluded_to_bits, nth_absent

SETS = st.integers(1, 60).flatmap(
    lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1)))
)


@given(SETS)
def test_absent_ids_are_found_by_rank(case: tuple[int, set[int]]) -> None:
    vocab_size, present = case
    absent = [token for token in range(vocab_size) if token not in present]
    found = nth_absent(np.arange(len(absent)), np.array(sorted(present), dtype=np.int64))
    assert found.tolist() == absent


@given(SETS)
def test_bits_come_back(case: tuple[int, set[int]]) -> None:
    vocab_size, excluded = case
    bits = excluded_to_bits(np.array(sorted(excluded), dtype=np.int64), vocab_size)
    assert len(bits) == (vocab_size + 7) // 8
    for token in range(vocab_size):
        assert bool(bits[token // 8] >> token % 8 & 1) is (token in excluded)
    assert excluded_from_bits(bits, vocab_size).tolist() == sorted(excluded)


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(PsiError, match="10 tokens has 2 bytes, got 3"):
        excluded_from_bits(bytes(3), 10)


def test_bits_beyond_the_vocabulary_are_refused() -> None:
    with pytest.raises(PsiError, match="beyond the vocabulary of 10 tokens"):
        excluded_from_bits(b"\x00\x04", 10)
