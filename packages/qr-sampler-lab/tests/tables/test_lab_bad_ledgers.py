# SPDX-License-Identifier: Apache-2.0
"""Whatever a file holds, commands end with a result or one clear line, never with a traceback."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
import typer

pytestmark = pytest.mark.heavy

COMMANDS = ("export", "analyze", "analyze --anyway", "watch")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, arms_in: Any) -> list[bytes]:
    """The lines of an intact ledger."""
    path: Path = arms_in(tmp_path_factory.mktemp("good"), steps=12)
    return path.read_bytes().split(b"\n")[:-1]


@pytest.fixture
def run(command: Any, tmp_path: Path) -> Any:
    """Runs a command on a path; returns its status and output, if it ended as it ought to."""

    def ran(name: str, path: Path) -> tuple[int, str]:
        program, *more = name.split()
        if program == "export":
            more += ["--to", str(tmp_path / f"tables{random.Random(path.name).random()}")]
        elif program == "watch":
            more.append("--once")
        done = command(program, path, *more)
        error = done.exception
        assert error is None or isinstance(error, SystemExit | typer.Exit), (name, error)
        assert done.exit_code in (0, 2), (name, done.output)
        assert done.exit_code == 0 or "error: " in done.output
        return done.exit_code, done.output

    return ran


NO_LEDGERS = {
    "empty": b"",
    "blank": b"\n",
    "binary": b"\x7fELF\x00\x01\xff" * 100,
    "text": b"hello\nworld\n",
    "list": b"[1]\n",
    "object": b'{"a": 1}\n',
    "nested": b"[" * 10**5,
    "one line without end": b"x" * 3_000_000,
}


@pytest.mark.parametrize("name", NO_LEDGERS)
def test_other_files_are_named(name: str, run: Any, tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(NO_LEDGERS[name])
    for each in COMMANDS:
        status, output = run(each, path)
        assert status == 2
        assert "is not a ledger" in output


def test_other_paths_are_named(run: Any, tmp_path: Path, good: list[bytes]) -> None:
    (tmp_path / "bare").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    for each in COMMANDS:
        assert run(each, tmp_path / "absent.jsonl")[0] == 2
        assert run(each, tmp_path / "bare")[0] == 2
        assert run(each, tmp_path / "pipe.jsonl")[0] == 2
    target = tmp_path / "target" / "ledger.jsonl"
    target.parent.mkdir()
    target.write_bytes(b"\n".join([*good, b""]))
    (tmp_path / "link.jsonl").symlink_to(target)
    for each in COMMANDS:
        assert run(each, tmp_path / "link.jsonl")[0] == 0


BAD = {
    "duplicate key": (rb'"rank":\d+', b'"rank":1,"rank":2'),
    "NaN": (rb'"temperature":[\d.]+', b'"temperature":NaN'),
    "infinity": (rb'"statistic":[-\d.e]+', b'"statistic":1e999'),
    "huge number": (rb'"statistic":[-\d.e]+', b'"statistic":1e308'),
    "huge integer": (rb'"rank":\d+', b'"rank":' + b"9" * 5_000),
    "large integer": (rb'"block_sum":\d+', b'"block_sum":9223372036854775807'),
    "large length": (rb'"block_bytes":\d+', b'"block_bytes":9223372036854775807'),
    "no length": (rb'"block_bytes":\d+', b'"block_bytes":0'),
    "large position": (rb'"position":\d+', b'"position":9223372036854775807'),
    "invalid UTF-8": (rb'"kind":"token"', b'"kind":"tok\xff"'),
    "surrogate": (rb'"kind":"token"', b'"kind":"tok\\ud800"'),
    "another type": (rb'"u":[\d.e-]+', b'"u":"0.5"'),
    "u of 1": (rb'"u":[\d.e-]+', b'"u":1.0'),
    "unknown kind": (rb'"kind":"token"', b'"kind":"weather"'),
    "no draw": (rb'"draw":\d+', b'"draw":null'),
    "too long": (rb'"kind":"token"', b'"kind":"' + b"t" * 2**21 + b'"'),
    "of a list": (rb"^.*$", b'{"kind":"redacted","n":1,"prev":"x","of":[],"fields":7}'),
    "of a token": (rb"^.*$", b'{"kind":"redacted","n":1,"prev":"x","of":"token","fields":{}}'),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_lines_are_left_out(name: str, run: Any, tmp_path: Path, good: list[bytes]) -> None:
    pattern, new = BAD[name]
    tokens = [at for at, line in enumerate(good) if b'"kind":"token"' in line]
    for each in ("export", "analyze --anyway", "watch"):
        lines = list(good)
        # The first decides what is made of its arm, others come when that is done.
        for index in (tokens[0], tokens[40]):
            lines[index] = re.sub(pattern, lambda match: new, lines[index], count=1)
            assert lines[index] != good[index]
        path = tmp_path / f"{each}.jsonl"
        path.write_bytes(b"\n".join([*lines, b""]))
        run(each, path)
    refused = run("analyze", path)
    assert refused[0] == 2
    assert re.search("fails rung [12]", refused[1])


def test_any_cut_and_any_bytes_are_survived(run: Any, tmp_path: Path, good: list[bytes]) -> None:
    script = random.Random(8)
    whole = b"\n".join([*good, b""])
    for index in range(6):
        data = bytearray(whole[: script.randrange(2_000, len(whole))])
        for _ in range(script.randrange(20)):
            data[script.randrange(1_500, len(data))] = script.randrange(256)
        path = tmp_path / f"ledger{index}.jsonl"
        path.write_bytes(data)
        for each in ("export", "analyze --anyway", "watch"):
            run(each, path)
