# SPDX-License-Identifier: Apache-2.0
"""What a ledger begins with: what it was made with, and when."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import (
    EntropySource,
    FallbackEntropySource,
    GuardedSource,
    JitClass,
    Origin,
    Settings,
    SourceLimits,
)
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.records import clocks
from qr_sampler.records.clocks import boot_id, clock_line
from qr_sampler.records.code_digest import code_digest, code_digests
from qr_sampler.records.genesis import genesis_of
from qr_sampler.records.reader import read_ledger
from qr_sampler.testing import ConstantEntropySource


class Lamp(EntropySource):
    """A source with settings, one of which it had better not have told."""

    name = "lamp"
    blocks = False
    jit_class = JitClass.FLUSHED
    conditioning = "none"
    origin = Origin("qr-lamp", "2.0")
    secrets = ("hush",)

    @property
    def limits(self) -> SourceLimits:
        return SourceLimits(max_bytes_per_request=9)

    @property
    def recorded_settings(self) -> Mapping[str, object]:
        return {"bulbs": 3, "path": Path("/dev/lamp"), "note": "say hush", "share": float("nan")}

    def get_random_bytes(self, n: int) -> bytes:
        return bytes(n)


def genesis(*sources: EntropySource) -> Any:
    return genesis_of(
        run_id="run",
        engine="toy",
        model="tiny",
        settings={"top_k": 5},
        sources=sources,
        distributions=["qr-sampler-core", "numpy", "not-installed"],
        host={"runner": "toy"},
    )


def test_sources_are_described_without_secrets() -> None:
    (lamp,) = genesis(GuardedSource(Lamp(), timeout_ms=1000)).sources
    assert lamp == {
        "name": "lamp",
        "kind": "lamp",
        "distribution": "qr-lamp",
        "version": "2.0",
        "jit_class": "B",
        "conditioning": "none",
        "tested": "nothing",
        "limits": {
            "max_bytes_per_request": 9,
            "max_requests_per_minute": None,
            "max_bytes_per_day": None,
        },
        "settings": {"bulbs": 3, "path": "/dev/lamp", "note": "say ***", "share": "nan"},
    }


def test_a_source_that_cannot_describe_itself_has_no_settings() -> None:
    class Broken(Lamp):
        jit_class = "surely A"  # type: ignore[assignment]

        @property
        def recorded_settings(self) -> Mapping[str, object]:
            raise RuntimeError("no idea")

    (lamp,) = genesis(GuardedSource(Broken(), timeout_ms=1000)).sources
    assert (lamp["settings"], lamp["jit_class"]) == ({}, "U")


def test_what_a_source_falls_back_to_is_one_of_the_sources() -> None:
    spare = ConstantEntropySource(name="spare")
    pairs = [FallbackEntropySource(Lamp(), spare), FallbackEntropySource(spare, Lamp())]
    assert [source["name"] for source in genesis(*pairs).sources] == ["lamp", "spare"]


def test_code_that_takes_part_is_digested() -> None:
    found = genesis(Lamp())
    assert found.versions == {
        "qr-sampler-core": version("qr-sampler-core"),
        "numpy": version("numpy"),
    }
    assert list(found.files) == ["qr-sampler-core"]
    assert found.files["qr-sampler-core"] == code_digest("qr-sampler-core")
    assert len(bytes.fromhex(found.files["qr-sampler-core"])) == 32
    assert (found.boot_id, found.continues, found.seal, found.public_key) == (
        boot_id(),
        None,
        None,
        None,
    )


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an installed distribution ``qr-lamp``, as from a wheel."""
    info = tmp_path / "site" / "qr_lamp-2.0.dist-info"
    package = tmp_path / "site" / "qr_lamp"
    (package / "__pycache__").mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_bytes(b"on = True\n")
    (package / "py.typed").touch()
    (package / "__pycache__" / "x.pyc").write_bytes(b"code")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: qr-lamp\nVersion: 2.0\n", "utf-8")
    recorded = ["qr_lamp/py.typed", "qr_lamp/__init__.py", "qr_lamp/__pycache__/x.pyc"]
    recorded += ["qr_lamp-2.0.dist-info/METADATA", "../bin/lamp", "loose.py"]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in recorded), "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


LISTING = "".join(
    f"{hashlib.sha256(data).hexdigest()}  {name}\n"
    for name, data in [("qr_lamp/__init__.py", b"on = True\n"), ("qr_lamp/py.typed", b"")]
)


def test_a_digest_is_that_of_what_sha256sum_prints(installed: Path) -> None:
    assert code_digest("qr-lamp") == hashlib.sha256(LISTING.encode()).hexdigest()
    (installed / "qr_lamp" / "__init__.py").write_bytes(b"on = False\n")
    assert code_digest("qr-lamp") not in ("", hashlib.sha256(LISTING.encode()).hexdigest())


def test_an_editable_installation_has_the_digest_of_its_wheel(
    installed: Path, tmp_path: Path
) -> None:
    before = code_digest("qr-lamp")
    source = tmp_path / "project" / "src"
    source.mkdir(parents=True)
    (installed / "qr_lamp").rename(source / "qr_lamp")
    origin = {"url": (tmp_path / "project").as_uri(), "dir_info": {"editable": True}}
    info = installed / "qr_lamp-2.0.dist-info"
    (info / "direct_url.json").write_text(json.dumps(origin), "utf-8")
    (info / "RECORD").write_text("__editable__.qr_lamp.pth,,\n", "utf-8")
    assert code_digest("qr-lamp") == before


def test_code_that_is_not_there_has_no_digest(installed: Path) -> None:
    (installed / "qr_lamp" / "py.typed").unlink()
    assert code_digests(["qr-lamp", "qr-nobody-has-this", "numpy"]) == {}


def test_names_that_are_no_unicode_are_written_all_the_same(tmp_path: Path) -> None:
    session = SamplingSession(
        EngineFacts(engine="toy", model="/models/\udcff", host={"paths": ["\udcfe"]}),
        Settings.load(entropy_source_type="lamp", ledger_dir=tmp_path),
        sources={"lamp": Lamp()},
    )
    session.close()
    (file,) = tmp_path.iterdir()
    first = next(read_ledger(file))
    assert (first["model"], first["host"]) == (r"\udcff", {"paths": [r"\udcfe"]})


def test_clocks_are_read_together() -> None:
    before = time.monotonic_ns(), time.time_ns()
    line = clock_line()
    after = time.monotonic_ns(), time.time_ns()
    assert before[0] <= line.monotonic_ns <= after[0]
    assert before[1] <= line.wall_time_ns <= after[1]
    assert line.synchronized in (None, True, False)
    assert line.boottime_ns is None or line.boottime_ns >= line.monotonic_ns


def test_where_the_system_has_no_such_clocks_they_are_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    monkeypatch.setattr(clocks.sys, "platform", "darwin")  # type: ignore[attr-defined]
    monkeypatch.setattr(clocks, "_BOOT_ID", tmp_path / "none")
    line = clock_line()
    assert (line.boottime_ns, line.synchronized, boot_id()) == (None, None, "")


@pytest.mark.parametrize(("state", "expected"), [(0, True), (5, False), (-1, None)])
def test_the_kernel_says_whether_its_clock_is_synchronized(
    state: int, expected: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        def __init__(self, name: None) -> None:
            pass

        def adjtimex(self, buffer: Any) -> int:
            assert bytes(buffer) == bytes(len(buffer)), "nothing is to be set"
            return state

    monkeypatch.setattr(clocks.sys, "platform", "linux")  # type: ignore[attr-defined]
    monkeypatch.setattr(clocks.ctypes, "CDLL", Library)  # type: ignore[attr-defined]
    assert clock_line().synchronized is expected


def test_what_the_host_says_of_itself_is_in_its_ledger(tmp_path: Path) -> None:
    session = SamplingSession(
        EngineFacts(engine="toy", model="tiny", host={"device": "abacus"}),
        Settings.load(entropy_source_type="lamp", ledger_dir=tmp_path),
        sources={"lamp": Lamp()},
    )
    session.close()
    (file,) = tmp_path.iterdir()
    first, second, *_ = read_ledger(file)
    assert (first["host"], first["schema_version"]) == ({"device": "abacus"}, 2)
    assert second["kind"] == "clock"
