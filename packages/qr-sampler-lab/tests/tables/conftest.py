# SPDX-License-Identifier: Apache-2.0
"""Ledgers of a host without a model, with all that happens to its requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

from qr_sampler import EntropySource, EntropyUnavailableError, FallbackEntropySource, Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.testing import ToyHost, play_script
from qr_sampler_cli.main import app


class SeededSource(EntropySource):
    """Hands out the bytes of a generator; now and then it has none.

    Args:
        name: What it is called.
        seed: Of the bytes and of the failures.
        fails: Share of the requests that fail.
        mean: Of the bytes, at least that of an ideal source.
    """

    name = ""
    blocks = False

    def __init__(self, name: str, seed: int, fails: float = 0.0, mean: float = 127.5) -> None:
        self.name = name
        self._script = Random(seed)
        self._fails = fails
        self._raised = mean / 127.5 - 1.0

    def get_random_bytes(self, n: int) -> bytes:
        if self._script.random() < self._fails:
            raise EntropyUnavailableError(self.name, "unplugged")
        data = bytearray(self._script.randbytes(n))
        for index in range(n):
            if data[index] < 128 and self._script.random() < self._raised:
                data[index] += 128
        return bytes(data)


def host_in(folder: Path, *, seed: int = 0, overlapping: bool = False, **settings: Any) -> ToyHost:
    """Returns a host that writes into *folder*.

    Its requests may choose ``device`` or ``mock_uniform``. Now and then the bytes of ``device``
    come from its fallback, which is called ``backup``.
    """
    sources = {
        "device": FallbackEntropySource(
            SeededSource("device", seed, fails=0.1), SeededSource("backup", seed + 1)
        ),
        "mock_uniform": SeededSource("mock_uniform", seed + 2, mean=140.0),
    }
    return ToyHost(
        SamplingSession(
            EngineFacts(engine="toy 1.0", model="none"),
            Settings.load(
                entropy_source_type="device",
                request_entropy_sources="mock_uniform",
                sample_count=settings.pop("sample_count", 64),
                ledger_dir=folder,
                **settings,
            ),
            sources=sources,
        ),
        seed=seed,
        overlapping=overlapping,
    )


@pytest.fixture
def host() -> Callable[..., ToyHost]:
    """Makes hosts that write ledgers."""
    return host_in


@pytest.fixture
def played(tmp_path: Path) -> Callable[..., Path]:
    """Writes a ledger in which requests are aborted, preempted, resumed and forked."""

    def play(name: str = "ledgers", *, seed: int = 1, steps: int = 100, **options: Any) -> Path:
        folder = tmp_path / name
        play_script(host_in(folder, seed=seed, **options), seed=seed, steps=steps)
        (path,) = folder.glob("*.jsonl")
        return path

    return play


def two_arms(folder: Path, *, steps: int = 200, seed: int = 3, **settings: Any) -> Path:
    """Writes a ledger of two arms, which differ in all that a request can choose."""
    host = host_in(folder, seed=seed, **settings)
    for number in range(steps):
        while len(host.running) < 6:
            added = len(host.requests)
            if added % 2:
                more: dict[str, Any] = {
                    "entropy_source": "mock_uniform",
                    "condition": "baseline-LO",
                    "trial": f"trial-lo-{added // 8}",
                    "sample_count": 256,
                    "fixed_temperature": 1.5,
                }
            else:
                more = {
                    "entropy_source": "device",
                    "condition": "intention-HI",
                    "trial": f"trial-hi-{added // 8}",
                }
            name = f"{'LO' if added % 2 else 'HI'} request {added}"
            host.add(40, request_key=name, **more)
        host.step()
        if number % 50 == 0:
            host.flush()
    host.close()
    (path,) = folder.glob("*.jsonl")
    return path


@pytest.fixture(scope="session")
def arms_in() -> Callable[..., Path]:
    """Writes a ledger of two arms into a folder."""
    return two_arms


@pytest.fixture
def arms(tmp_path: Path) -> Callable[..., Path]:
    """Writes a ledger of two arms."""

    def write(name: str = "arms", **options: Any) -> Path:
        return two_arms(tmp_path / name, **options)

    return write


@pytest.fixture
def lines() -> Callable[[Path], list[dict[str, Any]]]:
    """Returns the lines of a file as JSON."""
    return lambda path: [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


@pytest.fixture
def command() -> Callable[..., Any]:
    """Runs ``qr-sampler`` and returns its result."""

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run
