# SPDX-License-Identifier: Apache-2.0
"""The control that can be computed again: whose stream it is, and who shares it with nobody."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from qr_entropy_sources.prng import PrngSource
from qr_sampler import ConfigError, EntropyUnavailableError, JitClass, create_source
from qr_sampler.testing import EntropySourceContract

PUBLISHED = (0x60D24054E17A0698, 0xD5E79D89856E4F12, 0xD254972FE64BD782, 0xF1E3072A53C72571)
"""The first words of PCG64 for the seed 0xDEADBEAF, by NumPy's own test vectors
(``numpy/random/tests/data/pcg64-testset-1.csv``, made by the reference implementation in C)."""

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")


class CountingPCG64(np.random.PCG64):
    words = 0

    def random_raw(self, size: int) -> npt.NDArray[np.uint64]:  # type: ignore[override]
        CountingPCG64.words += size
        return super().random_raw(size)


class TestPrngSource(EntropySourceContract):
    @pytest.fixture
    def source(self, monkeypatch: pytest.MonkeyPatch) -> PrngSource:
        monkeypatch.setattr(np.random, "PCG64", CountingPCG64)
        CountingPCG64.words = 0
        return PrngSource()

    @pytest.fixture
    def generation_log(self) -> Callable[[], int]:
        return lambda: 8 * CountingPCG64.words


class TestSeededPrngSource(EntropySourceContract):
    @pytest.fixture
    def source(self) -> PrngSource:
        return PrngSource(seed=11)


def test_stream_0_is_that_of_the_reference_implementation() -> None:
    source = PrngSource(seed=0xDEADBEAF, stream=0)
    expected = b"".join(word.to_bytes(8, "little") for word in PUBLISHED)
    assert source.get_random_bytes(16) + source.get_random_bytes(16) == expected


def test_a_draw_begins_with_a_new_word() -> None:
    source = PrngSource(seed=0xDEADBEAF, stream=0)
    assert source.get_random_bytes(3) == PUBLISHED[0].to_bytes(8, "little")[:3]
    assert source.get_random_bytes(9)[:8] == PUBLISHED[1].to_bytes(8, "little")
    assert source.get_random_bytes(8) == PUBLISHED[3].to_bytes(8, "little")


def test_further_streams_are_the_children_of_the_seed() -> None:
    for number, child in enumerate(np.random.SeedSequence(7).spawn(3), start=1):
        expected = np.random.PCG64(child).random_raw(4).astype("<u8").tobytes()
        assert PrngSource(seed=7, stream=number).get_random_bytes(32) == expected


def test_what_a_draw_says_of_its_stream_draws_it_again() -> None:
    first = PrngSource()
    draws = [first.draw(n) for n in (5, 64, 1)]
    (said,) = {draw.device_id for draw in draws}
    seed, stream = (int(word.partition("=")[2]) for word in said.split()[1:])
    again = PrngSource(seed=seed, stream=stream)
    assert [again.draw(n).data for n in (5, 64, 1)] == [draw.data for draw in draws]


def test_without_a_number_no_two_sources_have_the_same_stream() -> None:
    data = {PrngSource(seed=7).get_random_bytes(16) for _ in range(100)}
    assert len(data) == 100


def _in_child(question: Callable[[], str]) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        try:
            os.write(writer, question().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        answer = answers.read().decode()
    os.waitpid(child, 0)
    return answer


@forks
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("seed", [None, 7])
def test_a_child_has_a_stream_of_its_own(seed: int | None) -> None:
    source = PrngSource(seed=seed)
    before = source.draw(16)
    theirs = _in_child(lambda: f"{source.draw(16).device_id}|{source.draw(16).data.hex()}")
    identity, _, data = theirs.partition("|")
    assert identity.startswith(f"pcg64 seed={source.seed} stream=")
    assert identity != before.device_id
    assert bytes.fromhex(data) not in (before.data, source.draw(16).data)


@forks
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_numbered_stream_belongs_to_the_process_that_constructed_it() -> None:
    source = PrngSource(seed=7, stream=3)

    def refusal() -> str:
        try:
            source.draw(1)
        except EntropyUnavailableError as error:
            return str(error)
        return "it drew"

    assert f"stream 3 of the seed belongs to process {os.getpid()}" in _in_child(refusal)
    assert source.draw(1).device_id == "pcg64 seed=7 stream=3"


def test_settings_are_read_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_PRNG_SEED", str(2**128 - 1))
    monkeypatch.setenv("QR_PRNG_STREAM", "5")
    source: Any = create_source("prng")
    assert (source.seed, source.stream) == (2**128 - 1, 5)
    assert source.recorded_settings == {"seed": str(2**128 - 1), "stream": 5}
    assert PrngSource().recorded_settings == {"seed": None, "stream": None}
    assert source.jit_class is JitClass.PSEUDO


@pytest.mark.parametrize(
    ("variable", "value"),
    [("SEED", "-1"), ("SEED", str(2**128)), ("STREAM", "-1"), ("STREAM", str(2**63))],
)
def test_settings_out_of_range_are_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(f"QR_PRNG_{variable}", value)
    with pytest.raises(ConfigError, match=f"QR_PRNG_{variable}='{value}'"):
        create_source("prng")
    with pytest.raises(ValueError, match="must lie in the interval"):
        PrngSource(**{variable.lower(): int(value)})


def test_named_streams_are_sources_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_PRNG_SEED", "7")
    toml = '[one]\nkind = "prng"\nstream = 1\n[two]\nkind = "prng"\nstream = 2\n'
    Path("sources.toml").write_text(toml, "utf-8")
    monkeypatch.setenv("QR_SOURCES_FILE", "sources.toml")
    one, two = create_source("one").draw(8), create_source("two").draw(8)
    assert (one.source, one.device_id) == ("one", "pcg64 seed=7 stream=1")
    assert (two.source, two.device_id) == ("two", "pcg64 seed=7 stream=2")
