# SPDX-License-Identifier: Apache-2.0
"""Simulated devices, and an environment without settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from qr_entropy_serial.simulators import Plug, SimulatedDevice
from qr_entropy_serial.source import SerialSource


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides the operator's own variables and `.env` file from every test."""
    for name in os.environ:
        if name.upper().startswith("QR_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def plug_in(tmp_path: Path) -> Iterator[Callable[[SimulatedDevice], Plug]]:
    """Plugs devices in, all of which are unplugged at the end."""
    with ExitStack() as plugs:
        count = iter(range(100))
        yield lambda device: plugs.enter_context(Plug(device, tmp_path / f"tty{next(count)}"))


@pytest.fixture
def build() -> Iterator[Callable[..., SerialSource]]:
    """Constructs patient sources, all of which are closed at the end."""
    built: list[SerialSource] = []

    def construct(port: Path, device: str, **options: object) -> SerialSource:
        source = SerialSource(str(port), device, **{"timeout_ms": 60_000, **options})  # type: ignore[arg-type]
        built.append(source)
        return source

    yield construct
    for source in built:
        source.close()


@pytest.fixture
def simulator_program(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Runs simulators as programs, and returns where their ports are."""
    programs: list[subprocess.Popen[str]] = []

    def start(device: str) -> Path:
        link = tmp_path / f"program{len(programs)}"
        command = [sys.executable, "-m", "qr_entropy_serial.simulators", device]
        program = subprocess.Popen(
            [*command, "--link", str(link), "--rate", "400000"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        programs.append(program)
        assert program.stdout is not None
        assert program.stdout.readline() == f"{link} is ready\n"
        return link

    yield start
    for program in programs:
        program.terminate()
        program.communicate()
