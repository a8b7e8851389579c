# SPDX-License-Identifier: Apache-2.0
"""The model's digests get into the ledger, and nobody waits for them."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.host.session import model_digest
from qr_sampler.records.files import ledgers_in
from qr_sampler.records.model_manifest import HashingStoppedError, ModelManifest, manifest_of
from qr_sampler.testing import ConstantEntropySource
from qr_sampler.testing.chain_checks import chained_lines
from qr_sampler.testing.toy_host import ToyHost


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    directory = tmp_path / "models" / "tiny"
    directory.mkdir(parents=True)
    (directory / "config.json").write_bytes(b"{}")
    (directory / "model.safetensors").write_bytes(bytes(1_000))
    return directory


def host_of(folder: Path, model: Path | None, **changes: Any) -> ToyHost:
    loaded = Settings.load(
        **{"ledger_dir": folder, "sample_count": 4, "max_ks_distance": 1.0, **changes}
    )
    facts = EngineFacts(engine="toy", model=str(model), model_files=model)
    sources = {"system": ConstantEntropySource(name="system")}
    return ToyHost(SamplingSession(facts, loaded, sources=sources))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "nothing has happened within a minute"
        time.sleep(0.002)


def is_hashing() -> bool:
    return any(thread.name == "qr-sampler-model" for thread in threading.enumerate())


def lines_in(folder: Path) -> list[dict[str, Any]]:
    (file,) = ledgers_in(folder)
    return chained_lines(file)


def test_the_model_is_named_without_its_place(tmp_path: Path, model: Path) -> None:
    host = host_of(tmp_path / "ledger", model)
    assert not is_hashing(), "an engine that starts reads its model itself"
    host.add()
    wait_for(lambda: not is_hashing())
    host.step()
    host.add()
    host.close()
    lines = lines_in(tmp_path / "ledger")
    (line,) = [line for line in lines if line["kind"] == "model"]
    expected = manifest_of(model)
    assert line["name"] == lines[0]["model"] == "tiny"
    assert (line["files"], line["manifest_sha256"]) == (expected.files, expected.sha256)
    (file,) = ledgers_in(tmp_path / "ledger")
    assert str(tmp_path).encode() not in file.read_bytes()


@pytest.mark.parametrize("changes", [{"ledger_model_digest": False}, {"ledger_dir": None}])
def test_it_is_not_read_where_nobody_wants_that(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(model_digest, "manifest_of", None)
    host = host_of(tmp_path / "ledger", model, **changes)
    host.add()
    assert not is_hashing()
    host.close()


def test_an_engine_neither_starts_nor_ends_later_because_of_it(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def endless(path: Path, *, cache: Path, stopped: Callable[[], bool]) -> ModelManifest:
        begun.set()
        wait_for(stopped)
        raise HashingStoppedError

    monkeypatch.setattr(model_digest, "manifest_of", endless)
    host = host_of(tmp_path / "ledger", model)
    host.add()
    assert begun.wait(60)
    host.step()
    host.close()
    kinds = [line["kind"] for line in lines_in(tmp_path / "ledger")]
    assert ("model" in kinds, kinds[-1]) == (False, "close")
    wait_for(lambda: not is_hashing())
    assert len(ledgers_in(tmp_path / "ledger")) == 1


def test_what_is_ready_too_late_begins_no_further_file(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = threading.Event()

    def late(path: Path, *, cache: Path, stopped: Callable[[], bool]) -> ModelManifest:
        closed.wait(60)
        return ModelManifest({"config.json": "0" * 64})

    monkeypatch.setattr(model_digest, "manifest_of", late)
    host = host_of(tmp_path / "ledger", model)
    host.add()
    host.step()
    host.close()
    closed.set()
    wait_for(lambda: not is_hashing())
    assert lines_in(tmp_path / "ledger")[-1]["kind"] == "close"


def test_a_model_that_cannot_be_read_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        host = host_of(tmp_path / "ledger", tmp_path / "nowhere")
        host.add()
        wait_for(lambda: not is_hashing())
    host.step()
    host.close()
    assert "the ledger has no digests of the model" in caplog.text
    assert "token" in {line["kind"] for line in lines_in(tmp_path / "ledger")}


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="no priorities on this platform")
def test_its_thread_alone_has_the_lowest_priority(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    def look(path: Path, *, cache: Path, stopped: Callable[[], bool]) -> ModelManifest:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        raise HashingStoppedError

    monkeypatch.setattr(model_digest, "manifest_of", look)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    host = host_of(tmp_path / "ledger", model)
    host.add()
    wait_for(lambda: bool(found))
    host.close()
    if model_digest.sys.platform == "linux":  # type: ignore[attr-defined]
        assert found == [19]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
