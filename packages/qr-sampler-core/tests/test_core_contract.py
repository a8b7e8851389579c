# SPDX-License-Identifier: Apache-2.0
"""The conformance kit accepts sound sources and catches each kind of defect."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qr_sampler import (
    EntropyDraw,
    EntropySource,
    EntropyUnavailableError,
    FallbackEntropySource,
    RowContext,
)
from qr_sampler.entropy import SourceLimits, SourceStatus
from qr_sampler.testing import (
    ConstantEntropySource,
    EntropySourceContract,
    RecordedEntropySource,
)


class Device:
    """A stand-in for hardware that counts what it generates."""

    def __init__(self) -> None:
        self.generated = 0
        self.broken = False

    def measure(self, n: int) -> bytes:
        if self.broken:
            raise EntropyUnavailableError("stand-in", "broken on request")
        self.generated += n
        return os.urandom(n)


class SoundSource(EntropySource):
    def __init__(self, device: Device, *, largest: int | None = None) -> None:
        self.device = device
        self._limits = SourceLimits(max_bytes_per_request=largest)

    @property
    def name(self) -> str:
        return "stand-in"

    @property
    def limits(self) -> SourceLimits:
        return self._limits

    def get_random_bytes(self, n: int) -> bytes:
        if n < 0:
            raise ValueError("n must not be negative")
        return self.device.measure(n)


class TestSoundSource(EntropySourceContract):
    @pytest.fixture
    def device(self) -> Device:
        return Device()

    @pytest.fixture
    def source(self, device: Device) -> SoundSource:
        return SoundSource(device)

    @pytest.fixture
    def generation_log(self, device: Device) -> Callable[[], int]:
        return lambda: device.generated

    @pytest.fixture
    def fault(self, device: Device) -> Callable[[], None]:
        return lambda: setattr(device, "broken", True)


class TestSourceWithLimit(TestSoundSource):
    @pytest.fixture
    def source(self, device: Device) -> SoundSource:
        return SoundSource(device, largest=100)


class TestFallbackServedByPrimary(TestSoundSource):
    @pytest.fixture
    def source(self, device: Device) -> FallbackEntropySource:
        spare = ConstantEntropySource(name="spare", fail_with="no spare")
        return FallbackEntropySource(SoundSource(device), spare)

    def test_draw_carries_the_origin(self, source: EntropySource) -> None:
        """A wrapper passes on the origin of the source that it wraps."""
        assert isinstance(source, FallbackEntropySource)
        super().test_draw_carries_the_origin(source.primary)
        assert source.draw(1).origin == source.primary.origin


class TestFallbackServedBySpare(TestSoundSource):
    @pytest.fixture
    def source(self, device: Device) -> FallbackEntropySource:
        gone = ConstantEntropySource(name="gone", fail_with="unplugged")
        return FallbackEntropySource(gone, SoundSource(device))


class TestConstantSource(EntropySourceContract):
    constant = True

    @pytest.fixture
    def source(self) -> ConstantEntropySource:
        return ConstantEntropySource(max_bytes_per_request=1000)

    @pytest.fixture
    def generation_log(self, source: ConstantEntropySource) -> Callable[[], int]:
        return lambda: sum(source.requests)

    @pytest.fixture
    def fault(self, source: ConstantEntropySource) -> Callable[[], None]:
        return lambda: setattr(source, "fail_with", "broken on request")


class TestRecordedSource(EntropySourceContract):
    @pytest.fixture
    def source(self) -> RecordedEntropySource:
        return RecordedEntropySource(os.urandom(1 << 16))

    @pytest.fixture
    def fault(self, source: RecordedEntropySource) -> Callable[[], None]:
        return lambda: setattr(source, "_position", 1 << 16)


# Every class below breaks one clause; the check named beside it must notice.


class ShortAnswer(SoundSource):
    def get_random_bytes(self, n: int) -> bytes:
        return super().get_random_bytes(n)[:-1] if n == 7 else super().get_random_bytes(n)


class ByteArrayAnswer(SoundSource):
    def get_random_bytes(self, n: int) -> bytes:
        answer: Any = bytearray(super().get_random_bytes(n))
        return answer  # type: ignore[no-any-return]


class NegativeAccepted(SoundSource):
    def get_random_bytes(self, n: int) -> bytes:
        return super().get_random_bytes(max(n, 0))


class ClosedInterval(SoundSource):
    def get_random_float64(self, shape: Any, out: Any = None) -> Any:
        return np.ones(shape)


class CoarseLattice(SoundSource):
    def get_random_float64(self, shape: Any, out: Any = None) -> Any:
        return np.full(shape, 2.0**-54)


class OutIgnored(SoundSource):
    def get_random_float64(self, shape: Any, out: Any = None) -> Any:
        return super().get_random_float64(shape)


class RequestedTooEarly(SoundSource):
    def draw(self, n: int) -> EntropyDraw:
        now = time.monotonic_ns()
        data = self.get_random_bytes(n)
        return EntropyDraw(
            data=data, source=self.name, requested_ns=0, received_ns=now, wall_time_ns=1
        )


class AnonymousDraw(SoundSource):
    def draw(self, n: int) -> EntropyDraw:
        now = time.monotonic_ns()
        return EntropyDraw(
            data=self.get_random_bytes(n),
            source="someone else",
            requested_ns=now,
            received_ns=time.monotonic_ns(),
            wall_time_ns=1,
        )


class OneBlockForAllRows(SoundSource):
    def draw_rows(self, contexts: Any, sizes: Any) -> EntropyDraw:
        return self.draw(max(sizes, default=0))


class Pooled(SoundSource):
    """Serves from a pool that it fills ahead of need."""

    _pool = b""

    def get_random_bytes(self, n: int) -> bytes:
        if len(self._pool) < n:
            self._pool += self.device.measure(max(n, 8192))
        answer, self._pool = self._pool[:n], self._pool[n:]
        return answer


class DrawsAtConstruction(SoundSource):
    def __init__(self, device: Device) -> None:
        super().__init__(device)
        device.measure(1)


class DrawsOnStatus(SoundSource):
    def status(self) -> SourceStatus:
        self.device.measure(1)
        return SourceStatus(available=True)


class StuckBit(SoundSource):
    def get_random_bytes(self, n: int) -> bytes:
        return bytes(byte & 0x7F for byte in super().get_random_bytes(n))


class StuckValue(SoundSource):
    """Every fiftieth byte or so is the same."""

    def get_random_bytes(self, n: int) -> bytes:
        data = bytearray(super().get_random_bytes(n))
        data[::50] = b"\x55" * len(data[::50])
        return bytes(data)


class LeakyFault(SoundSource):
    def get_random_bytes(self, n: int) -> bytes:
        if self.device.broken:
            raise OSError("the driver's own error")
        return super().get_random_bytes(n)


class SilentFault(SoundSource):
    def get_random_bytes(self, n: int) -> bytes:
        return os.urandom(n)


class Unclosable(SoundSource):
    _closed = False

    def close(self) -> None:
        if self._closed:
            raise RuntimeError("closed already")
        self._closed = True


class BrittleAfterClose(SoundSource):
    _closed = False

    def get_random_bytes(self, n: int) -> bytes:
        if self._closed:
            raise AttributeError("no connection")
        return super().get_random_bytes(n)

    def close(self) -> None:
        self._closed = True


class LimitIgnored(SoundSource):
    def __init__(self, device: Device) -> None:
        super().__init__(device, largest=64)

    def draw(self, n: int) -> EntropyDraw:
        now = time.monotonic_ns()
        return EntropyDraw(
            data=self.device.measure(n),
            source=self.name,
            requested_ns=now,
            received_ns=now,
            wall_time_ns=1,
        )


class UnsharedState(SoundSource):
    """Hands every waiting thread the same block."""

    _turn = 0
    _block = b""

    def get_random_bytes(self, n: int) -> bytes:
        self._turn += 1
        if self._turn % 2:
            self._block = super().get_random_bytes(n)
        return self._block[:n]


class Nameless(SoundSource):
    @property
    def name(self) -> str:
        return ""


def check(method: str, **arguments: Any) -> Callable[[SoundSource, Device], None]:
    """Returns a call of one contract check on a source and its device."""

    def run(source: SoundSource, device: Device) -> None:
        available = {
            "source": source,
            "generation_log": lambda: device.generated,
            "fault": lambda: setattr(device, "broken", True),
            **arguments,
        }
        bound = getattr(EntropySourceContract(), method)
        wanted = bound.__code__.co_varnames[1 : bound.__code__.co_argcount]
        bound(**{name: available[name] for name in wanted})

    return run


CAUGHT = (AssertionError, pytest.fail.Exception)

Expected = type[BaseException] | tuple[type[BaseException], ...]

ROWS = ([RowContext("run", "sequence", row, b"") for row in range(2)], [16, 48])

DEFECTS: list[tuple[Callable[[Device], SoundSource], str, dict[str, Any], Expected]] = [
    (Nameless, "test_identity_is_stated", {}, CAUGHT),
    (ShortAnswer, "test_length_is_exact", {"n": 7}, CAUGHT),
    (ByteArrayAnswer, "test_length_is_exact", {"n": 7}, CAUGHT),
    (NegativeAccepted, "test_negative_length_is_refused", {}, CAUGHT),
    (ClosedInterval, "test_floats_are_uniform_lattice_points", {"shape": 3}, CAUGHT),
    (CoarseLattice, "test_floats_are_uniform_lattice_points", {"shape": 3}, CAUGHT),
    (OutIgnored, "test_floats_fill_the_array_given", {}, CAUGHT),
    (OutIgnored, "test_unusable_float_arrays_are_refused", {}, CAUGHT),
    (RequestedTooEarly, "test_draw_carries_its_provenance", {}, CAUGHT),
    (AnonymousDraw, "test_draw_carries_its_provenance", {}, CAUGHT),
    (AnonymousDraw, "test_draw_carries_the_origin", {}, CAUGHT),
    (OneBlockForAllRows, "test_rows_are_served_in_one_draw", {"rows": ROWS}, CAUGHT),
    (LimitIgnored, "test_draw_respects_the_limits", {}, CAUGHT),
    (UnsharedState, "test_nothing_is_delivered_twice", {}, CAUGHT),
    (UnsharedState, "test_threads_share_no_bytes", {}, CAUGHT),
    (StuckBit, "test_output_is_not_grossly_defective", {}, CAUGHT),
    (StuckValue, "test_output_is_not_grossly_defective", {}, CAUGHT),
    (DrawsAtConstruction, "test_construction_generates_nothing", {}, CAUGHT),
    (DrawsOnStatus, "test_passive_questions_generate_nothing", {}, CAUGHT),
    (Pooled, "test_every_answer_is_generated_after_its_request", {}, CAUGHT),
    (Unclosable, "test_close_is_idempotent", {}, RuntimeError),
    (BrittleAfterClose, "test_use_after_close_works_or_says_unavailable", {}, AttributeError),
    (LeakyFault, "test_fault_means_unavailable", {}, OSError),
    (SilentFault, "test_fault_means_unavailable", {}, CAUGHT),
    (SilentFault, "test_fault_after_use_means_unavailable", {}, CAUGHT),
    (SilentFault, "test_fault_is_reported_not_raised_by_passive_calls", {}, CAUGHT),
]


@pytest.mark.parametrize(("defective", "method", "arguments", "expected"), DEFECTS)
def test_defect_is_caught(
    defective: Callable[[Device], SoundSource],
    method: str,
    arguments: dict[str, Any],
    expected: Expected,
) -> None:
    run = check(method, **arguments)
    sound = Device()
    run(SoundSource(sound), sound)
    device = Device()
    with pytest.raises(expected):
        run(defective(device), device)


def test_background_prefetch_is_caught() -> None:
    device = Device()
    readings = iter([0, 4096])
    with pytest.raises(AssertionError):
        EntropySourceContract().test_nothing_is_generated_between_calls(
            SoundSource(device), lambda: next(readings)
        )


def test_every_check_has_a_defect_that_it_catches() -> None:
    checks = {name for name in dir(EntropySourceContract) if name.startswith("test_")}
    covered = {method for _, method, _, _ in DEFECTS} | {"test_nothing_is_generated_between_calls"}
    # The remaining ones state that a working source works: there is no subtler defect to plant.
    assert checks - covered == {
        "test_draw_of_nothing",
        "test_probe_draws_and_reports",
        "test_status_is_plain",
    }


def test_failures_explain_themselves() -> None:
    with pytest.raises(AssertionError, match=r"assert 6 == 7"):
        EntropySourceContract().test_length_is_exact(ShortAnswer(Device()), 7)


def run_python(code: str) -> str:
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    return completed.stdout + completed.stderr


def test_doubles_do_not_import_pytest() -> None:
    code = "import sys, qr_sampler.testing; print('pytest' in sys.modules)"
    assert run_python(code).strip() == "False"


@pytest.mark.slow
def test_contract_without_pytest_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import qr_sampler.testing as kit; print(kit.ConstantEntropySource.__name__)\n"
        "kit.EntropySourceContract"
    )
    output = run_python(code)
    assert "ConstantEntropySource" in output
    assert "install the extra qr-sampler-core[testing]" in output


def test_unknown_names_are_attribute_errors() -> None:
    import qr_sampler.testing as kit

    with pytest.raises(AttributeError, match="Nonsense"):
        kit.__getattr__("Nonsense")
