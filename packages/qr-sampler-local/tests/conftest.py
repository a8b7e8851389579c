# SPDX-License-Identifier: Apache-2.0
"""What the tests of the package share: a loop with made-up logits, and no settings from outside."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from qr_sampler import EntropySource, EntropyUnavailableError, Settings
from qr_sampler.testing import EmittedText, check_files, check_ledger
from qr_sampler_local import LocalSampler, LocalSequence

VOCAB_SIZE = 16
END = 9


@pytest.fixture(scope="session", autouse=True)
def _interrupts_arrive() -> Iterator[None]:
    """Undoes what a shell does to background jobs: they ignore SIGINT, and so do their children."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


class Numbers(EntropySource):
    """A source that counts what it has delivered, and fails when it is told to."""

    blocks = False

    def __init__(self, name: str = "numbers") -> None:
        self._name = name
        self.requests: list[int] = []
        self.fails = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def drawn(self) -> int:
        return sum(self.requests)

    def get_random_bytes(self, n: int) -> bytes:
        if self.fails:
            raise EntropyUnavailableError(self.name, "unplugged")
        self.requests.append(n)
        return Random(f"{self.name} {len(self.requests)}").randbytes(n)


class Loop:
    """A sampler with sources, a ledger and made-up logits."""

    def __init__(self, folder: Path, *names: str, **settings: Any) -> None:
        self.folder = folder
        self.sources = [Numbers(name) for name in names or ("numbers",)]
        self.settings = Settings.load(
            **{
                "entropy_source_type": self.sources[0].name,
                "ledger_dir": folder,
                "sample_count": 64,
                "max_ks_distance": 1.0,
                "health": False,
                **settings,
            }
        )
        self.sampler = LocalSampler("made up", self.settings, sources=self.sources)
        self._random = np.random.default_rng(7)

    @property
    def source(self) -> Numbers:
        return self.sources[0]

    def logits(self, rows: int) -> Any:
        return self._random.normal(size=(rows, VOCAB_SIZE)).astype(np.float32)

    def sequence(self, **options: Any) -> LocalSequence:
        return self.sampler.sequence([1, 2, 3], **{"end_tokens": [END], **options})

    def step(self, *sequences: LocalSequence) -> list[int]:
        return self.sampler.step(self.logits(len(sequences)), sequences)

    def finish(self, *sequences: LocalSequence) -> None:
        while not all(sequence.ended for sequence in sequences):
            self.step(*sequences)

    def lines(self, *kinds: str) -> list[dict[str, Any]]:
        lines = [
            json.loads(line)
            for file in sorted(self.folder.glob("*.jsonl"))
            for line in file.read_text("utf-8").splitlines()
        ]
        return [line for line in lines if not kinds or line["kind"] in kinds]

    def check(self, texts: Iterable[LocalSequence | EmittedText]) -> None:
        """Compares the ledger with *texts*; of a sequence, with the tokens that it has now."""
        emitted = [text if isinstance(text, EmittedText) else text_of(text) for text in texts]
        drawn = sum(source.drawn for source in self.sources)
        check_ledger(self.lines(), emitted, bytes_drawn=drawn)
        check_files(sorted(self.folder.glob("*.jsonl")))


def text_of(sequence: LocalSequence, *, settled: bool = True) -> EmittedText:
    """What *sequence* has emitted."""
    return EmittedText(
        request_key=sequence.request_key,
        sequence=sequence.name,
        tokens=tuple(sequence.tokens),
        settled=settled,
    )


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see none of the settings of whoever runs them."""
    for name in list(os.environ):
        if name.startswith("QR_") and name != "QR_TINY_MODEL_DIR":
            monkeypatch.delenv(name)


@pytest.fixture
def make_loop(tmp_path: Path) -> Iterator[Callable[..., Loop]]:
    """Makes loops with sources of the given names and with further settings; closes them."""
    loops: list[Loop] = []

    def make(*names: str, **settings: Any) -> Loop:
        loops.append(Loop(tmp_path, *names, **settings))
        return loops[-1]

    yield make
    for loop in loops:
        loop.sampler.close()


@pytest.fixture
def loop(make_loop: Callable[..., Loop]) -> Loop:
    """A loop with one source."""
    return make_loop()


@pytest.fixture
def text() -> Callable[..., EmittedText]:
    """Returns what a sequence has emitted."""
    return text_of
