# SPDX-License-Identifier: Apache-2.0
"""Compiled code that is kept: who finds it, who does not, and what a broken file means."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numba", reason="needs the extra numba")

from numba.core import caching, config

from qr_sampler_accel.host.arithmetic import compiler, kept_code

WARM_UP = """
import qr_sampler_accel
from qr_sampler_accel.host.byte_counts import _count
qr_sampler_accel.warm_up(logits_on_host=False)
print(sum(_count.stats.cache_hits.values()), sum(_count.stats.cache_misses.values()))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where code is kept during a test."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    kept_code._warn_once.cache_clear()
    return tmp_path


def twice(number: int) -> int:
    return 2 * number


def hits_and_misses() -> tuple[int, int]:
    """What a process that compiles :func:`twice` finds."""
    loop = compiler.compiled(twice)
    assert loop(21) == 42
    return sum(loop.stats.cache_hits.values()), sum(loop.stats.cache_misses.values())


@pytest.mark.heavy
def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", WARM_UP]
    printed = [
        subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [each.stdout.split() for each in printed] == [["0", "1"], ["1", "0"]]


def test_code_of_other_sources_is_not_current(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hits_and_misses() == (0, 1)
    assert hits_and_misses() == (1, 0)
    monkeypatch.setattr(kept_code, "sources_digest", lambda: "of a file that has changed")
    assert hits_and_misses() == (0, 1)
    assert hits_and_misses() == (1, 0)


def test_every_source_is_in_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = kept_code.sources_digest.__wrapped__
    before = digest()
    assert before == digest()
    (tmp_path / "loop.py").write_text("x = 1\n")
    monkeypatch.setattr("qr_sampler.selection.__path__", [str(tmp_path)])
    changed = digest()
    (tmp_path / "loop.py").write_text("x = 2\n")
    assert len({before, changed, digest()}) == 3


def test_what_cannot_be_read_is_compiled_anew(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert hits_and_misses() == (0, 1)
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        path.write_bytes(b"no code")
    with caplog.at_level(logging.WARNING, logger=kept_code.__name__):
        assert hits_and_misses() == (0, 1)
    assert "compiled anew" in caplog.text
    assert hits_and_misses() == (1, 0)


def test_an_index_without_its_code_does_not_make_old_code_current(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is full, or a kill, between the two files that Numba writes."""

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    assert hits_and_misses() == (0, 1)
    monkeypatch.setattr(kept_code, "sources_digest", lambda: "of a file that has changed")
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(caching.IndexDataCacheFile, "_save_data", full)
        assert hits_and_misses() == (0, 1)
    assert "No space left on device" in caplog.text
    assert hits_and_misses() == (0, 1)
    assert hits_and_misses() == (1, 0)


def test_code_of_another_signature_is_not_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that began with an empty index may have written to one file."""
    assert hits_and_misses() == (0, 1)
    loop = compiler.compiled(twice)
    assert loop(1.5) == 3.0
    (of_floats, *_), (of_integers, *_) = (
        list(folder.rglob(f"*.{number}.nbc")) for number in (2, 1)
    )
    of_integers.write_bytes(of_floats.read_bytes())
    assert hits_and_misses() == (0, 1)


def test_code_that_somebody_else_has_kept_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hits_and_misses() == (0, 1)

    def refused(*arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(caching.tempfile, "TemporaryFile", refused)
    monkeypatch.setattr(caching.IndexDataCacheFile, "save", refused)
    assert hits_and_misses() == (1, 0)


def test_without_sources_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qr_sampler.selection.__path__", [str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="holds no sources"):
        kept_code.sources_digest.__wrapped__()


def test_what_cannot_be_written_is_compiled_by_each_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.FunctionCache, "save_overload", full)
    with caplog.at_level(logging.WARNING, logger=kept_code.__name__):
        assert hits_and_misses() == (0, 1)
        assert hits_and_misses() == (0, 1)
    assert "No space left on device" in caplog.text


def test_broken_code_that_cannot_be_overwritten_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*arguments: Any) -> None:
        raise PermissionError(13, "Permission denied")

    assert hits_and_misses() == (0, 1)
    monkeypatch.setattr(caching.FunctionCache, "load_overload", refused)
    monkeypatch.setattr(caching.FunctionCache, "flush", refused)
    with caplog.at_level(logging.WARNING, logger=kept_code.__name__):
        assert hits_and_misses() == (0, 1)
    assert "cannot be overwritten" in caplog.text


def test_without_a_place_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_code._Code, "_locator_classes", ())
    assert [hits_and_misses() for _ in range(2)] == [(0, 1)] * 2


def test_places_of_somebody_else_are_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "CACHE_LOCATOR_CLASSES", "UserProvidedCacheLocator")
    assert [hits_and_misses() for _ in range(2)] == [(0, 1)] * 2
    assert not list(folder.iterdir())
