# SPDX-License-Identifier: Apache-2.0
"""Sources: draws with their provenance, uniform numbers, fallback and the failure policy."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from qr_sampler import (
    ConfigError,
    EntropyDraw,
    EntropySource,
    EntropyUnavailableError,
    FallbackEntropySource,
    GuardedSource,
    Origin,
    Settings,
    SourceStatus,
    UnknownPluginError,
    configured_source,
    configured_sources,
)
from qr_sampler.entropy import JitClass
from qr_sampler.testing import ConstantEntropySource, RecordedEntropySource


class Misbehaving(EntropySource):
    """Raises what it is told to, or answers with a wrong number of bytes."""

    def __init__(self, error: BaseException | None = None, extra: int = 0) -> None:
        self.error = error
        self.extra = extra
        self.closed = 0

    @property
    def name(self) -> str:
        return "misbehaving"

    def get_random_bytes(self, n: int) -> bytes:
        if self.error is not None:
            raise self.error
        return b"\x01" * (n + self.extra)

    def close(self) -> None:
        self.closed += 1


def test_a_draw_carries_its_story() -> None:
    source = RecordedEntropySource(b"abcdef", name="tape")
    source.origin = Origin("some-dist", "1.2")
    before, wall_before = time.monotonic_ns(), time.time_ns()
    draw = source.draw(4)
    after, wall_after = time.monotonic_ns(), time.time_ns()
    assert (draw.data, draw.source, draw.requests) == (b"abcd", "tape", 1)
    assert draw.origin == Origin("some-dist", "1.2")
    assert before <= draw.requested_ns <= draw.received_ns <= after
    assert wall_before <= draw.wall_time_ns <= wall_after
    assert not draw.fallback
    assert (draw.fallback_from, draw.fallback_reason) == ("", "")
    assert draw.commitment_echoed is None


@pytest.mark.parametrize(
    ("limit", "size", "requests"),
    [
        (None, 10, [10]),
        (10, 10, [10]),
        (4, 10, [4, 4, 2]),
        (1, 3, [1, 1, 1]),
        (100, 10, [10]),
        (4, 0, []),
        (None, 0, []),
    ],
)
def test_draws_are_split_as_the_limits_demand(
    limit: int | None, size: int, requests: list[int]
) -> None:
    source = ConstantEntropySource(max_bytes_per_request=limit)
    draw = source.draw(size)
    assert source.requests == requests
    assert len(draw.data) == size
    assert draw.requests == len(requests)


def test_split_draws_keep_the_order_of_the_bytes() -> None:
    class Tape(RecordedEntropySource):
        limits = ConstantEntropySource(max_bytes_per_request=3).limits  # type: ignore[assignment]

    assert Tape(bytes(range(10))).draw(10).data == bytes(range(10))


@pytest.mark.parametrize("extra", [-1, 1, -5])
def test_an_answer_of_another_length_is_dropped(extra: int) -> None:
    with pytest.raises(EntropyUnavailableError, match=f"asked for 5 bytes, received {5 + extra}"):
        Misbehaving(extra=extra).draw(5)


def test_a_failing_piece_fails_the_whole_draw() -> None:
    class Tape(RecordedEntropySource):
        limits = ConstantEntropySource(max_bytes_per_request=3).limits  # type: ignore[assignment]

    with pytest.raises(EntropyUnavailableError, match="2 recorded bytes left, 3 asked for"):
        Tape(bytes(8)).draw(9)


def test_negative_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        ConstantEntropySource().draw(-1)


def test_status_is_passive_and_probe_is_not() -> None:
    source = ConstantEntropySource()
    assert source.is_available
    assert source.status() == SourceStatus(available=True)
    assert source.requests == []
    assert source.probe() == SourceStatus(available=True)
    assert source.requests == [1]
    source.fail_with = "unplugged"
    assert not source.is_available
    assert source.probe() == SourceStatus(available=False, reason="unplugged")
    assert Misbehaving().status().available
    Misbehaving().close()


def test_uniform_numbers_follow_their_formula() -> None:
    data = np.random.default_rng(9).bytes(8 * 30)
    numbers = RecordedEntropySource(data).get_random_float64((5, 6))
    assert numbers.shape == (5, 6)
    assert numbers.dtype == np.float64
    for index, number in enumerate(numbers.ravel().tolist()):
        word = int.from_bytes(data[8 * index : 8 * index + 8], "little")
        assert number == (word >> 11) / 2**53


def test_uniform_numbers_fill_the_half_open_interval() -> None:
    assert ConstantEntropySource(0).get_random_float64(3).tolist() == [0.0] * 3
    assert ConstantEntropySource(255).get_random_float64(3).tolist() == [1.0 - 2.0**-53] * 3


@pytest.mark.parametrize("shape", [0, 4, (), (2, 3), (0, 5), (2, 1, 2)])
def test_shapes_are_those_of_numpy(shape: int | tuple[int, ...]) -> None:
    source = ConstantEntropySource(0x80)
    numbers = source.get_random_float64(shape)
    assert numbers.shape == np.empty(shape).shape
    assert (numbers == (0x8080808080808080 >> 11) / 2**53).all()
    out = np.full(shape, -1.0)
    assert source.get_random_float64(shape, out=out) is out
    assert (out == numbers).all()
    assert sum(source.requests) == 2 * 8 * numbers.size


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (np.empty(4, np.float32), TypeError),
        (np.empty(4, np.int64), TypeError),
        (np.empty(4, ">f8"), TypeError),
        (np.empty(5), ValueError),
        (np.empty((4, 1)), ValueError),
        (np.empty(8)[::2], ValueError),
        (np.frombuffer(bytes(32)), ValueError),
    ],
    ids=["float32", "int64", "big-endian", "length", "shape", "strided", "read-only"],
)
def test_unfit_outputs_are_refused_before_any_byte_is_spent(
    out: Any, error: type[Exception]
) -> None:
    source = ConstantEntropySource()
    with pytest.raises(error, match="out"):
        source.get_random_float64(4, out=out)
    assert source.requests == []


def test_fortran_order_is_refused() -> None:
    with pytest.raises(ValueError, match="C-contiguous"):
        ConstantEntropySource().get_random_float64((2, 3), out=np.empty((2, 3), order="F"))


def test_uniform_numbers_respect_the_limits_and_refuse_short_answers() -> None:
    source = ConstantEntropySource(max_bytes_per_request=10)
    assert source.get_random_float64(3).shape == (3,)
    assert source.requests == [10, 10, 4]
    with pytest.raises(EntropyUnavailableError, match="asked for 24 bytes, received 16"):
        Misbehaving(extra=-8).get_random_float64(3)


def pair(fail_with: str | None = None) -> FallbackEntropySource:
    return FallbackEntropySource(
        ConstantEntropySource(1, name="device", fail_with=fail_with),
        ConstantEntropySource(2, name="spare"),
    )


def test_the_primary_serves_while_it_can() -> None:
    source = pair()
    draw = source.draw(3)
    assert (draw.data, draw.source, draw.fallback) == (b"\x01" * 3, "device", False)
    assert isinstance(source.fallback, ConstantEntropySource)
    assert source.fallback.requests == []


def test_the_fallback_labels_what_it_serves() -> None:
    source = pair(fail_with="unplugged")
    source.fallback.origin = Origin("spares", "4.0")
    draw = source.draw(3)
    assert (draw.data, draw.source, draw.fallback) == (b"\x02" * 3, "spare", True)
    assert draw.fallback_from == "device"
    assert draw.fallback_reason == "device: unplugged"
    assert draw.origin == Origin("spares", "4.0")
    assert source.get_random_bytes(2) == b"\x02\x02"


def test_the_primary_is_tried_again_every_time() -> None:
    source = pair(fail_with="unplugged")
    assert source.draw(1).fallback
    assert isinstance(source.primary, ConstantEntropySource)
    source.primary.fail_with = None
    assert not source.draw(1).fallback


def test_a_draw_is_never_mixed() -> None:
    """A primary that fails half way through a split draw leaves none of its bytes behind."""

    class Tape(RecordedEntropySource):
        limits = ConstantEntropySource(max_bytes_per_request=3).limits  # type: ignore[assignment]

    draw = FallbackEntropySource(Tape(b"\x09" * 8), ConstantEntropySource(2)).draw(9)
    assert draw.data == b"\x02" * 9
    assert draw.fallback


def test_short_answers_lead_to_the_fallback() -> None:
    draw = FallbackEntropySource(Misbehaving(extra=-1), ConstantEntropySource(2)).draw(4)
    assert draw.data == b"\x02" * 4
    assert "asked for 4 bytes, received 3" in draw.fallback_reason


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("bug"),
        ValueError("bug"),
        OSError("bug"),
        ConfigError("bug"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_other_error_leads_to_the_fallback(error: BaseException) -> None:
    spare = ConstantEntropySource()
    with pytest.raises(type(error)) as caught:
        FallbackEntropySource(Misbehaving(error), spare).draw(4)
    assert caught.value is error
    assert spare.requests == []


def test_a_double_failure_names_both_reasons() -> None:
    source = pair(fail_with="unplugged")
    assert isinstance(source.fallback, ConstantEntropySource)
    source.fallback.fail_with = "flat battery"
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(1)
    assert caught.value.source == "device"
    assert caught.value.reason == "unplugged; its fallback 'spare' failed too: flat battery"
    assert isinstance(caught.value.__cause__, EntropyUnavailableError)


def test_the_pair_presents_itself_as_its_primary() -> None:
    primary = ConstantEntropySource(name="device", max_bytes_per_request=7)
    source = FallbackEntropySource(primary, ConstantEntropySource(name="spare"))
    assert source.name == "device"
    assert source.limits == primary.limits
    assert source.status() == SourceStatus(available=True)
    primary.fail_with = "unplugged"
    assert source.status() == SourceStatus(
        available=True, reason="device: unplugged; falling back to spare"
    )


def test_the_pair_claims_what_its_primary_claims() -> None:
    primary = ConstantEntropySource()
    primary.jit_class, primary.conditioning = JitClass.ATTESTED, "none"
    primary.origin = Origin("device-package", "1.2")
    pair = FallbackEntropySource(primary, ConstantEntropySource())
    assert (pair.jit_class, pair.conditioning) == (JitClass.ATTESTED, "none")
    assert pair.origin == Origin("device-package", "1.2")


def test_closing_the_pair_closes_both() -> None:
    primary, spare = Misbehaving(), Misbehaving()
    source = FallbackEntropySource(primary, spare)
    source.close()
    source.close()
    assert (primary.closed, spare.closed) == (2, 2)


SOURCES = """
    from qr_sampler.errors import ConfigError
    from qr_sampler.testing import ConstantEntropySource

    class First(ConstantEntropySource):
        @classmethod
        def from_environment(cls):
            return cls(1, name="first")

    class Second(ConstantEntropySource):
        @classmethod
        def from_environment(cls):
            return cls(2, name="second")

    class Misconfigured(ConstantEntropySource):
        @classmethod
        def from_environment(cls):
            raise ConfigError("QR_DEVICE='': no such device")
"""
GROUP = """
    [qr_sampler.entropy_sources]
    first = policy_sources:First
    second = policy_sources:Second
    misconfigured = policy_sources:Misconfigured
    missing = policy_sources:Missing
"""


@pytest.fixture
def _policy_sources(install_plugin: Any) -> None:
    install_plugin("policy-sources", GROUP, {"policy_sources": SOURCES})


def policy(source: str, mode: str) -> EntropySource:
    return configured_source(Settings.load(entropy_source_type=source, fallback_mode=mode))


@pytest.mark.usefixtures("_policy_sources")
def test_a_named_source_becomes_the_fallback() -> None:
    source = policy("first", "second")
    assert isinstance(source, FallbackEntropySource)
    assert (source.primary.name, source.fallback.name) == ("first", "second")
    assert source.primary.origin == Origin("policy-sources", "1.0")


@pytest.mark.usefixtures("_policy_sources")
@pytest.mark.parametrize("mode", ["error", "end_request", "first"])
def test_error_and_the_source_itself_mean_no_fallback(mode: str) -> None:
    source = policy("first", mode)
    assert not isinstance(source, FallbackEntropySource)
    assert source.draw(1).data == b"\x01"


@pytest.mark.usefixtures("_policy_sources")
@pytest.mark.parametrize(
    ("source", "mode", "message"),
    [
        ("nowhere", "error", "unknown entropy source 'nowhere'"),
        ("first", "nowhere", "unknown entropy source 'nowhere'"),
        ("missing", "second", "policy-sources 1.0 cannot be loaded"),
        ("first", "missing", "policy-sources 1.0 cannot be loaded"),
        ("misconfigured", "first", "QR_DEVICE=''"),
        ("first", "misconfigured", "QR_DEVICE=''"),
    ],
)
def test_faults_of_either_source_show_at_the_start(source: str, mode: str, message: str) -> None:
    with pytest.raises((ConfigError, ImportError), match=message):
        policy(source, mode)


def test_the_default_policy_needs_the_system_source_only() -> None:
    settings = Settings.load()
    assert settings.entropy_source_type == settings.fallback_mode == "system"
    with pytest.raises(UnknownPluginError, match="'no_such_source'"):
        configured_source(Settings.load(entropy_source_type="no_such_source"))


@pytest.mark.usefixtures("_policy_sources")
def test_every_declared_source_has_the_same_policy() -> None:
    declared = Settings.load(
        entropy_source_type="first", request_entropy_sources="second", fallback_mode="second"
    )
    sources = configured_sources(declared)
    assert list(sources) == ["first", "second"]
    first, second = sources.values()
    assert isinstance(first, FallbackEntropySource)
    assert isinstance(second, GuardedSource)
    assert first.fallback is second
    assert isinstance(first.primary, GuardedSource)
    assert (first.draw(1).data, second.draw(1).data) == (b"\x01", b"\x02")


def test_draws_are_immutable() -> None:
    draw = ConstantEntropySource().draw(1)
    assert isinstance(draw, EntropyDraw)
    with pytest.raises(AttributeError):
        draw.fallback = True  # type: ignore[misc]


def test_a_recording_is_handed_out_once() -> None:
    source = RecordedEntropySource(b"abc")
    assert source.get_random_bytes(2) == b"ab"
    with pytest.raises(EntropyUnavailableError, match="1 recorded bytes left, 2 asked for"):
        source.get_random_bytes(2)
    assert source.get_random_bytes(1) == b"c"


def test_a_draw_does_not_change_with_the_buffer_that_a_source_hands_out() -> None:
    buffer = bytearray(b"ab")

    class Careless(ConstantEntropySource):
        def get_random_bytes(self, n: int) -> bytes:
            return memoryview(buffer)  # type: ignore[return-value]

    draw = Careless().draw(2)
    buffer[:] = b"cd"
    assert draw.data == b"ab"
