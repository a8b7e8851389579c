# SPDX-License-Identifier: Apache-2.0
"""A sampler for a loop of one's own: its tokens, its records, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from qr_sampler import EntropySource, Settings
from qr_sampler.testing import EmittedText, check_ledger
from qr_sampler_local import LocalSampler, LocalSequence

VOCAB_SIZE = 16
END = 9


class Numbers(EntropySource):
    """A source that counts what it has delivered."""

    name = "numbers"
    blocks = False
    drawn = 0

    def get_random_bytes(self, n: int) -> bytes:
        self.drawn += n
        return Random(self.drawn).randbytes(n)


class Loop:
    """A sampler with a source, a ledger and made-up logits."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.source = Numbers()
        loaded = Settings.load(
            entropy_source_type="numbers",
            ledger_dir=folder,
            sample_count=64,
            max_ks_distance=1.0,
            **settings,
        )
        self.sampler = LocalSampler("made up", loaded, sources=[self.source])
        self._rng = np.random.default_rng(7)

    def logits(self, rows: int) -> Any:
        return self._rng.normal(size=(rows, VOCAB_SIZE)).astype(np.float32)

    def step(self, *sequences: LocalSequence) -> list[int]:
        return self.sampler.step(self.logits(len(sequences)), sequences)

    def lines(self) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for file in sorted(self.folder.iterdir())
            for line in file.read_text("utf-8").splitlines()
        ]

    def check(self, *texts: EmittedText) -> None:
        check_ledger(self.lines(), texts, bytes_drawn=self.source.drawn)


def text_of(sequence: LocalSequence, tokens: list[int], *, settled: bool = True) -> EmittedText:
    return EmittedText(
        request_key=sequence.request_key,
        sequence=sequence.name,
        tokens=tuple(tokens),
        settled=settled,
    )


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def test_rows_end_at_different_times_and_the_ledger_is_what_was_emitted(loop: Loop) -> None:
    with loop.sampler as sampler:
        sequences = [
            sampler.sequence([1, 2], end_tokens=[END], max_tokens=20, request_key=f"text {number}")
            for number in range(5)
        ]
        emitted: dict[str, list[int]] = {sequence.name: [] for sequence in sequences}
        while any(not sequence.ended for sequence in sequences):
            running = [not sequence.ended for sequence in sequences]
            tokens = loop.step(*sequences)
            for sequence, was_running, token in zip(sequences, running, tokens, strict=True):
                if was_running:
                    emitted[sequence.name].append(token)
                else:
                    assert token == END
    for sequence in sequences:
        assert sequence.tokens == emitted[sequence.name]
        ends = {"stop": sequence.tokens[-1] == END, "length": len(sequence.tokens) == 20}
        assert ends[sequence.finish_reason]
    assert len({len(sequence.tokens) for sequence in sequences}) > 2
    loop.check(*(text_of(sequence, emitted[sequence.name]) for sequence in sequences))
