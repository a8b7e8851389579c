# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler health show``: every alarm of a ledger with its draw, source by source."""

from __future__ import annotations

import json
import sys
import types
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from qr_sampler import EntropySource
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.settings import Settings
from qr_sampler.testing import ToyHost
from qr_sampler_cli.health import alarms
from qr_sampler_cli.main import app

WALL_NS = 1_796_000_000_000_000_000


def draw(number: int, source: str = "device", **values: Any) -> dict[str, Any]:
    told = {"kind": "draw", "draw": number, "source": source, "fallback": False, "bytes": 64}
    return {**told, "wall_time_ns": WALL_NS + number, **values}


def token(number: int, **values: Any) -> dict[str, Any]:
    return {"kind": "token", "sequence": "s", "position": number, "draw": number, **values}


def discard(reason: str, **values: Any) -> dict[str, Any]:
    told = {"kind": "discard", "reason": reason, "source": "device", "block_bytes": 1_024}
    return {**told, "wall_time_ns": WALL_NS, **values}


GENESIS = {"kind": "genesis", "schema_version": 2, "run_id": "0" * 32, "pid": 1}

LINES = [
    GENESIS,
    discard("startup_test"),
    discard("startup_test", block_bytes=512),
    discard("late"),
    draw(0, health="ok"),
    token(0),
    draw(1, health="suspect"),
    token(1),
    token(2, draw=1, emitted=False),
    draw(2),
    discard("health: repeated_windows 1 >= 1", block_bytes=10_240),
    draw(
        3,
        "system",
        health="ok",
        fallback=True,
        fallback_reason="device: health: repeated_windows 1 >= 1",
    ),
    draw(4, "system", health="ok", fallback=True, fallback_reason="device: unplugged"),
]


def written(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    return path


def show(*arguments: Path | str) -> Result:
    return CliRunner().invoke(app, ["health", "show", *map(str, arguments)])


def test_every_alarm_has_its_draw(tmp_path: Path) -> None:
    ledger = written(tmp_path / "a.jsonl", LINES)
    result = show(ledger, "--json")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert data["alarm_count"] == 2
    suspect, failed = data["alarms"]
    assert (suspect["state"], suspect["draw"], suspect["bytes"]) == ("suspect", 1, 64)
    assert (suspect["source"], suspect["wall_time_ns"]) == ("device", WALL_NS + 1)
    assert (suspect["file"], suspect["line"]) == ("a.jsonl", 7)
    assert (failed["state"], failed["draw"]) == ("failed", None)
    assert failed["reason"] == "repeated_windows 1 >= 1"
    assert failed["bytes"] == 10_240
    assert data["sources"] == {
        "device": {
            "draws": {"ok": 1, "suspect": 1, "untested": 1, "unknown": 0},
            "failures": 1,
            "startup_draws": 2,
            "startup_bytes": 1_536,
            "suspect_tokens": 1,
            "replaced": 1,
        },
        "system": {
            "draws": {"ok": 2, "suspect": 0, "untested": 0, "unknown": 0},
            "failures": 0,
            "startup_draws": 0,
            "startup_bytes": 0,
            "suspect_tokens": 0,
            "replaced": 0,
        },
    }


def test_people_are_told_the_same(tmp_path: Path) -> None:
    result = show(written(tmp_path / "a.jsonl", LINES))
    assert result.exit_code == 1
    for words in (
        "a.jsonl:7",
        "a.jsonl:11",
        "2026-11-30",
        "repeated_windows 1 >= 1",
        "2 (1,536 bytes)",
        "2 alarms: 1 suspect draws, 1 failures",
    ):
        assert words in result.stdout, words
    assert not [line for line in result.stdout.splitlines() if line != line.rstrip()]


def test_directories_and_several_runs_are_read(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", LINES)
    written(tmp_path / "b.jsonl", [{**GENESIS, "run_id": "1" * 32}, draw(0, health="suspect")])
    assert json.loads(show(tmp_path, "--json").stdout)["alarm_count"] == 3


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([GENESIS, draw(0, health="ok"), token(0)], "no alarm in 1 tested draws"),
        ([GENESIS, draw(0), token(0)], "no alarm, but no draw was tested either"),
    ],
)
def test_without_alarms(tmp_path: Path, lines: list[dict[str, Any]], words: str) -> None:
    result = show(written(tmp_path / "a.jsonl", lines))
    assert result.exit_code == 0
    assert words in result.stdout


def test_words_of_other_versions_are_no_silence(tmp_path: Path) -> None:
    lines = [GENESIS, draw(0, health="ok"), draw(1, health="failing"), draw(2, health=None)]
    path = written(tmp_path / "a.jsonl", lines)
    assert "said of 2 draws is in words of another version" in show(path).stdout
    draws = json.loads(show(path, "--json").stdout)["sources"]["device"]["draws"]
    assert draws == {"ok": 1, "suspect": 0, "untested": 0, "unknown": 2}


def test_hostile_and_torn_lines_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "MOST_ALARMS", 3)
    odd = [
        draw(0, "\x1b[31mred", health="suspect", wall_time_ns=10**30),
        draw(1, health=["suspect"], bytes="many"),
        draw(2, health="suspect", draw=True, bytes=-1, wall_time_ns="now"),
        draw(3, 17, health="suspect"),
        draw(4, health="suspect"),
        {"kind": "discard", "reason": 5},
        {"kind": "discard", "reason": "health: x"},
    ]
    path = written(tmp_path / "a.jsonl", [GENESIS, *odd])
    with path.open("a", encoding="utf-8") as file:
        file.write('{"kind": "draw", "hea')
    result = show(path)
    assert result.exit_code == 1
    assert "\x1b[31m" not in result.stdout
    assert "and 2 more alarms" in result.stdout
    assert "1 lines could not be read" in result.stdout


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("nothing\n", "utf-8")
    for path in (tmp_path / "a.txt", tmp_path / "missing"):
        result = show(path)
        assert result.exit_code == 2
        assert str(path) in result.stderr


class Replaying(EntropySource):
    """Delivers good bytes, and from its tenth draw on the same block again and again."""

    name = "replaying"
    blocks = False

    def __init__(self) -> None:
        self._rng = np.random.default_rng(3)
        self._draws = 0
        self._block = b""

    def get_random_bytes(self, n: int) -> bytes:
        self._draws += 1
        if self._draws < 10 or len(self._block) != n:
            self._block = self._rng.bytes(n)
        return self._block


def test_a_ledger_of_a_source_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = "qr_sampler.entropy_sources"
    ours = [EntryPoint("replaying", "lamps:Replaying", group)]

    def listed(**wanted: str) -> list[EntryPoint]:
        return [*(ours if wanted["group"] == group else ()), *entry_points(**wanted)]

    monkeypatch.setattr("qr_sampler.components.registry.entry_points", listed)
    monkeypatch.setattr("qr_sampler.ENTROPY_SOURCES._loaded", {})
    module = types.ModuleType("lamps")
    vars(module).update(Replaying=Replaying)
    monkeypatch.setitem(sys.modules, "lamps", module)
    session = SamplingSession(
        EngineFacts(engine="toy 1.0", model="none"),
        Settings.load(
            entropy_source_type="replaying", sample_count=1_024, ledger_dir=tmp_path / "ledgers"
        ),
    )
    host = ToyHost(session, seed=1)
    for _ in range(30):
        while len(host.running) < 2:
            host.add(40)
        host.step()
    host.close()
    result = show(tmp_path / "ledgers", "--json")
    assert result.exit_code == 1, result.output
    data = json.loads(result.stdout)
    device = data["sources"]["replaying"]
    assert device["draws"]["ok"] >= 5
    assert (device["startup_draws"] >= 1, device["failures"]) == (True, 1)
    assert device["replaced"] == data["sources"]["system"]["draws"]["ok"] > 10
    (alarm,) = data["alarms"]
    assert alarm["state"] == "failed"
    assert alarm["reason"].startswith("repeated_windows ")
