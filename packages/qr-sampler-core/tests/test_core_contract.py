# SPDX-License-Identifier: Apache-2.0
"""The conformance kit accepts sound sources and catches each kind of defect."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from qr_sampler import (
    EntropySource,
    EntropyUnavailableError,
    FallbackEntropySource,
)
from qr_sampler.entropy import SourceLimits
from qr_sampler.testing import (
    ConstantEntropySource,
    EntropySourceContract,
    RecordedEntropySource,
)
from qr_sampler.testing.contracts.clauses import _failed
from qr_sampler.testing.contracts.quiet_import import noises_of_import


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
    not_applicable: ClassVar[dict[str, str]] = {
        "test_draw_carries_the_origin": "a wrapper passes on the origin of the source it wraps"
    }

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
    not_applicable: ClassVar[dict[str, str]] = {
        "test_a_fork_gets_bytes_of_its_own": "a recording is the same in every process"
    }

    @pytest.fixture
    def source(self) -> RecordedEntropySource:
        return RecordedEntropySource(os.urandom(1 << 16))

    @pytest.fixture
    def fault(self, source: RecordedEntropySource) -> Callable[[], None]:
        return lambda: setattr(source, "_position", 1 << 16)


def test_a_clause_is_not_overridden_silently() -> None:
    def nothing(self: object) -> None:
        return

    for change in (nothing, None):
        with pytest.raises(TypeError, match=r"overrides test_close_is_idempotent .* silently"):
            type("TestCareless", (EntropySourceContract,), {"test_close_is_idempotent": change})

    class Helpers:
        test_close_is_idempotent = nothing

    with pytest.raises(TypeError, match="silently"):
        type("TestMixed", (Helpers, EntropySourceContract), {})
    reasoned = {"not_applicable": {"test_close_is_idempotent": "it cannot be closed"}}
    kind: Any = type("TestReasoned", (Helpers, EntropySourceContract), reasoned)
    kind().test_close_is_idempotent()
    # An heir of such a class has the same reason.
    type("TestHeir", (kind,), {})


def test_a_clause_that_does_not_apply_is_skipped_with_its_reason() -> None:
    reasoned = {"not_applicable": {"test_close_is_idempotent": "it cannot be closed"}}
    kind: Any = type("TestUnclosable", (EntropySourceContract,), reasoned)
    with pytest.raises(pytest.skip.Exception, match="it cannot be closed"):
        kind().test_close_is_idempotent(ConstantEntropySource())


@pytest.mark.parametrize(
    ("reasons", "says"),
    [
        ({"test_close": "it has none"}, r"\['test_close'\] are no clauses"),
        ({"test_close_is_idempotent": " "}, "is no reason"),
        ({"test_close_is_idempotent": True}, "is no reason"),
    ],
)
def test_reasons_are_looked_at(reasons: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        type("TestExcused", (EntropySourceContract,), {"not_applicable": reasons})


def test_what_presupposes_a_broken_clause_says_nothing() -> None:
    class Unclosable(ConstantEntropySource):
        def close(self) -> None:
            raise RuntimeError("closed already")

    checks: Any = type("TestUnclosable", (EntropySourceContract,), {})()
    with pytest.raises(RuntimeError):
        checks.test_close_is_idempotent(Unclosable())
    with pytest.raises(pytest.skip.Exception, match="because test_close_is_idempotent failed"):
        checks.test_use_after_close_works_or_says_unavailable(Unclosable())


def test_failures_explain_themselves() -> None:
    class Short(ConstantEntropySource):
        def get_random_bytes(self, n: int) -> bytes:
            return super().get_random_bytes(n)[:-1]

    with pytest.raises(AssertionError, match=r"assert 6 == 7"):
        EntropySourceContract().test_length_is_exact(Short(), 7)


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


def test_an_import_may_run_programs_and_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``ctypes.util.find_library`` does for the library of a device."""
    code = "import subprocess\nsubprocess.run(['true'], capture_output=True)\nprint('hm', end='')\n"
    (tmp_path / "finds_a_library.py").write_text(code, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert noises_of_import("finds_a_library") == ()


def test_a_secret_in_the_settings_is_not_printed() -> None:
    class Talkative(SoundSource):
        secrets = ("hunter2",)
        recorded_settings: ClassVar[dict[str, object]] = {"key": "hunter2"}

    check = TestSoundSource().test_recorded_settings_are_plain_and_not_secret
    with pytest.raises(AssertionError, match="hold a secret") as caught:
        check(Talkative(Device()))
    assert "hunter2" not in str(caught.value)
    _failed.pop(TestSoundSource, None)
