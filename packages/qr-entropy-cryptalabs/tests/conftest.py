# SPDX-License-Identifier: Apache-2.0
"""A simulated device, and an environment without settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qr_entropy_cryptalabs.device import Wanted
from qr_entropy_cryptalabs.simulators import SimulatedQCicada
from qr_entropy_cryptalabs.source import CryptaLabsSource
from qr_entropy_serial.simulators import Plug


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides the operator's own variables and `.env` file from every test."""
    for name in os.environ:
        if name.upper().startswith("QR_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def device() -> SimulatedQCicada:
    return SimulatedQCicada(rate=2_000_000.0)


@pytest.fixture
def plug(device: SimulatedQCicada, tmp_path: Path) -> Iterator[Plug]:
    with Plug(device, tmp_path / "qcicada") as plug:
        yield plug


@pytest.fixture
def build(plug: Plug) -> Iterator[Callable[..., CryptaLabsSource]]:
    """Constructs patient sources for the device, all of which are closed at the end."""
    built: list[CryptaLabsSource] = []

    def construct(timeout_ms: int = 60_000, **wanted: object) -> CryptaLabsSource:
        source = CryptaLabsSource(str(plug.link), Wanted(**wanted), timeout_ms=timeout_ms)  # type: ignore[arg-type]
        built.append(source)
        return source

    yield construct
    for source in built:
        source.close()
