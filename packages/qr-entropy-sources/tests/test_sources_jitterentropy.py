# SPDX-License-Identifier: Apache-2.0
"""libjitterentropy: its functions as its manual has them, its failures, and the real one.

The stand-in exports what ``jitterentropy(3)`` documents; a compiler of C makes it. The real library
is tested where it is installed.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from qr_entropy_sources.jitter.library import JitterError, JitterLibrary, library_at
from qr_entropy_sources.jitter.source import JitterEntropySource
from qr_sampler import ConfigError, EntropyUnavailableError, JitClass, create_source
from qr_sampler.testing import EntropySourceContract

SOURCE = Path(__file__).with_name("stand_in_jitterentropy.c")
COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)

with_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a compiler of C")


def _real_library() -> str:
    try:
        return library_at("").version
    except JitterError:
        return ""


with_library = pytest.mark.skipif(not _real_library(), reason="libjitterentropy is not installed")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("library") / "libjitterentropy.so.3"
    command = [str(COMPILER), "-shared", "-fPIC", "-o", str(file), str(SOURCE)]
    subprocess.run(command, check=True, timeout=120)
    return file


@pytest.fixture
def stand_in(built: Path) -> Any:
    """The stand-in, in its first state again."""
    library = ctypes.CDLL(str(built))
    library.stand_in_fail(0, 0, 0)
    library.stand_in_version(3_040_100)
    library_at.cache_clear()
    return library


@with_compiler
class TestJitterEntropySource(EntropySourceContract):
    not_applicable: ClassVar[dict[str, str]] = {
        "test_a_fork_gets_bytes_of_its_own": "the stand-in is a script, the same in every process"
    }

    @pytest.fixture
    def source(self, built: Path, stand_in: Any) -> JitterEntropySource:
        return JitterEntropySource(built)

    @pytest.fixture
    def generation_log(self, stand_in: Any) -> Callable[[], int]:
        before = stand_in.stand_in_generated()
        return lambda: int(stand_in.stand_in_generated() - before)

    @pytest.fixture
    def fault(self, stand_in: Any) -> Callable[[], None]:
        return lambda: stand_in.stand_in_fail(0, -2, 0)


@with_library
def test_the_real_library_delivers() -> None:
    source = JitterEntropySource()
    try:
        assert source.status().reason == f"libjitterentropy {_real_library()}"
        first, second = source.draw(64), source.draw(64)
        assert first.data != second.data
        assert first.device_id == source.status().reason
    finally:
        source.close()


@with_compiler
def test_health_tests_are_demanded_and_oversampling_passed_on(built: Path, stand_in: Any) -> None:
    begun = stand_in.stand_in_inits()
    source = JitterEntropySource(built, oversampling=7)
    assert stand_in.stand_in_inits() == begun, "construction measures nothing"
    source.draw(40)
    source.draw(40)
    assert stand_in.stand_in_inits() == begun + 1
    assert stand_in.stand_in_osr() == 7
    assert stand_in.stand_in_flags() == 1 << 5, "JENT_FORCE_FIPS of jitterentropy.h"
    source.close()


@with_compiler
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ((2, 0, 0), "cannot be used on this machine: the timer is too coarse"),
        ((99, 0, 0), "its start-up tests return 99"),
        ((0, -2, 0), "delivers nothing: the repetition count test of its time differences failed"),
        ((0, -3, 0), "the adaptive proportion test of its time differences failed"),
        ((0, -77, 0), "it returns -77 for 8 bytes"),
        ((0, 0, 1), "no collector to give"),
    ],
)
def test_a_failure_is_told_and_ends_with_new_start_up_tests(
    built: Path, stand_in: Any, failure: tuple[int, int, int], reason: str
) -> None:
    before = stand_in.stand_in_collectors()
    source = JitterEntropySource(built)
    stand_in.stand_in_fail(*failure)
    with pytest.raises(EntropyUnavailableError, match=reason):
        source.draw(8)
    assert stand_in.stand_in_collectors() == before, "a collector that has failed is freed"
    stand_in.stand_in_fail(0, 0, 0)
    tested = stand_in.stand_in_inits()
    assert len(source.draw(8).data) == 8
    assert stand_in.stand_in_inits() == tested + 1
    source.close()
    source.close()
    assert stand_in.stand_in_collectors() == before


@with_compiler
def test_an_old_library_is_refused(built: Path, stand_in: Any) -> None:
    stand_in.stand_in_version(3_000_000)
    with pytest.raises(JitterError, match=r"libjitterentropy 3\.0\.0 is too old; install 3\.1\.0"):
        JitterLibrary(str(built))


def test_an_absent_library_is_unavailable_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = dict.fromkeys(("linux", "darwin", "win32"), ("libjitterentropy-not-here.so",))
    monkeypatch.setattr("qr_entropy_sources.jitter.library._NAMES", names)
    library_at.cache_clear()
    source = create_source("jitterentropy")
    assert not source.is_available
    assert "install it with the system's packages" in source.status().reason
    with pytest.raises(EntropyUnavailableError, match="'libjitterentropy3'"):
        source.draw(1)
    library_at.cache_clear()


def test_a_file_that_is_no_library_is_named(tmp_path: Path) -> None:
    file = tmp_path / "library.so"
    file.write_bytes(b"no library")
    status = JitterEntropySource(file).status()
    assert not status.available
    assert str(file) in status.reason
    assert "set QR_JITTERENTROPY_LIBRARY" in status.reason


@with_compiler
def test_another_library_lacks_its_functions(tmp_path: Path) -> None:
    code = tmp_path / "other.c"
    code.write_text("int other(void) { return 1; }\n")
    file = tmp_path / "other.so"
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", file, code], check=True, timeout=120)
    assert "lacks a function" in JitterEntropySource(file).status().reason


def test_settings_are_read_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_SOURCES", "jitter=jitterentropy:/opt/lib.so")
    monkeypatch.setenv("QR_JITTERENTROPY_OVERSAMPLING", "3")
    source = create_source("jitter")
    assert source.recorded_settings == {"library": "/opt/lib.so", "oversampling": 3}
    assert source.jit_class is JitClass.FLUSHED
    monkeypatch.setenv("QR_JITTERENTROPY_OVERSAMPLING", "21")
    with pytest.raises(ConfigError, match="QR_JITTERENTROPY_OVERSAMPLING='21'"):
        create_source("jitter")
    with pytest.raises(ValueError, match=r"oversampling=21 must lie in the interval \[0, 20\]"):
        JitterEntropySource(oversampling=21)
