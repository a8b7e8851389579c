# SPDX-License-Identifier: Apache-2.0
"""Clauses about what a source answers: lengths, types, numbers, and how it looks."""

from __future__ import annotations

from contextlib import suppress
from itertools import groupby
from typing import Any, Final

import numpy as np
import pytest

from qr_sampler.entropy.draw import JitClass
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.testing.contracts.calls import in_time
from qr_sampler.testing.contracts.clauses import clause
from qr_sampler.testing.contracts.source_clauses import (
    EXACT,
    FLOATS,
    OWN,
    SAMPLE_BYTES,
    TIMELY,
    SourceClauses,
)

__all__ = ["AnswerClauses"]

_MAX_VALUE_COUNT: Final = 60
"""Binomial(4096, 1/256) reaches it, for any of the 256 values, with probability 6.5e-15."""

_MAX_BIT_DEVIATION: Final = 224
"""Seven standard deviations of Binomial(4096, 1/2): 1.7e-11 over eight bit positions, two-sided."""

_MAX_RUN: Final = 7
"""A run of eight equal bytes has probability below 4096 / 256**7 = 5.7e-14."""


class AnswerClauses(SourceClauses):
    """Whatever is asked for comes, as what it should be."""

    @clause()
    def test_identity_is_stated(self, source: EntropySource) -> None:
        """The source says what it is called, what it claims and what it does to raw bits."""
        assert isinstance(source.name, str)
        assert source.name
        assert source.name == source.name.strip()
        assert isinstance(source.jit_class, JitClass)
        assert isinstance(source.conditioning, str)
        assert source.conditioning

    @clause()
    def test_an_answer_comes_in_time(self, source: EntropySource) -> None:
        """A call ends, with bytes or without, long before anybody loses patience."""
        for what, call in (("get_random_bytes", source.get_random_bytes), ("draw", source.draw)):
            with suppress(EntropyUnavailableError):
                in_time(lambda call=call: call(8), self.patience_s, f"{what}(8)")  # type: ignore[misc]

    @clause(TIMELY)
    @pytest.mark.parametrize("n", [0, 1, 7, 64, SAMPLE_BYTES])
    def test_length_is_exact(self, source: EntropySource, n: int) -> None:
        """Exactly as many bytes as asked for, up to the largest request."""
        largest = source.limits.max_bytes_per_request
        if largest is not None and n > largest:
            pytest.skip(f"a request has {largest} bytes at most")
        assert len(source.get_random_bytes(n)) == n

    @clause(TIMELY, EXACT)
    def test_answers_share_no_buffer(self, source: EntropySource) -> None:
        """Each answer is an object of its own, ``bytes`` or a new array, that stays as it is."""
        answers: list[Any] = []
        numbers: list[Any] = []
        for _ in range(3):
            answers += [source.get_random_bytes(64), source.draw(64).data]
            numbers.append(source.get_random_float64(8))
            kept = [bytes(answer) for answer in answers], [array.tolist() for array in numbers]
        assert [type(answer) for answer in answers] == [bytes] * len(answers)
        source.get_random_bytes(64)
        source.get_random_float64(8)
        assert ([bytes(one) for one in answers], [one.tolist() for one in numbers]) == kept
        assert not np.shares_memory(numbers[0], numbers[1])

    @clause(TIMELY)
    def test_negative_length_is_refused(self, source: EntropySource) -> None:
        """A negative length is a mistake of the caller, not an unavailable source."""
        with pytest.raises(ValueError, match="negative"):
            source.get_random_bytes(-1)
        with pytest.raises(ValueError, match="negative"):
            source.draw(-1)

    @clause(TIMELY, EXACT)
    @pytest.mark.parametrize("shape", [0, 5, (), (2, 3)])
    def test_floats_are_uniform_lattice_points(
        self, source: EntropySource, shape: int | tuple[int, ...]
    ) -> None:
        """Float64 of the shape asked for, in [0, 1), multiples of 2**-53."""
        numbers = source.get_random_float64(shape)
        assert numbers.dtype == np.float64
        assert numbers.shape == np.empty(shape).shape
        assert np.all((numbers >= 0.0) & (numbers < 1.0))
        assert np.all(np.ldexp(numbers, 53) % 1.0 == 0.0)

    @clause(TIMELY, EXACT, FLOATS)
    def test_floats_fill_the_array_given(self, source: EntropySource) -> None:
        """``out`` is filled in place and returned."""
        out = np.full((4, 2), -1.0)
        assert source.get_random_float64((4, 2), out=out) is out
        assert np.all((out >= 0.0) & (out < 1.0))

    @clause(TIMELY, EXACT, FLOATS, "test_floats_fill_the_array_given")
    def test_unusable_float_arrays_are_refused(self, source: EntropySource) -> None:
        """Wrong dtype is a TypeError, wrong shape or layout a ValueError."""
        read_only = np.empty(4)
        read_only.flags.writeable = False
        wrong_dtype: Any = np.empty(4, dtype=np.float32)
        with pytest.raises(TypeError):
            source.get_random_float64(4, out=wrong_dtype)
        for unusable in (np.empty(5), np.empty((4, 1)), np.empty(8)[::2], read_only):
            with pytest.raises(ValueError, match="out"):
                source.get_random_float64(4, out=unusable)

    @clause(TIMELY, EXACT, OWN)
    def test_output_is_not_grossly_defective(self, source: EntropySource) -> None:
        """No stuck value, no stuck bit, no long run: false-alarm probability below 2e-11."""
        if self.constant or not self.uniform:
            pytest.skip("the source does not claim uniform bytes")
        sample = np.frombuffer(source.draw(SAMPLE_BYTES).data, dtype=np.uint8)
        counts = np.bincount(sample, minlength=256)
        ones = np.unpackbits(sample).reshape(-1, 8).sum(axis=0)
        assert counts.max() < _MAX_VALUE_COUNT, f"byte {counts.argmax()} comes {counts.max()} times"
        assert np.abs(ones - SAMPLE_BYTES / 2).max() <= _MAX_BIT_DEVIATION, f"bit counts {ones}"
        assert max(len(list(run)) for _, run in groupby(sample.tolist())) <= _MAX_RUN
