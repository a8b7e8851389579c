# SPDX-License-Identifier: Apache-2.0
"""A new host in 120 lines at most, by public names only, fulfils what vLLM fulfils."""

from __future__ import annotations

import ast
import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import qr_sampler
import qr_sampler.host
import qr_sampler.testing
from qr_sampler import EntropySource, Settings
from qr_sampler.host import (
    EngineFacts,
    Entry,
    RecordKeeper,
    SamplingSession,
    StepRows,
    StopConditions,
    TokenSequence,
)
from qr_sampler.testing import EmittedText, check_ledger

MOST_LINES = 120
END = 0


# The host begins here.


@dataclass(eq=False)
class Text:
    """A text in the making."""

    tokens: list[int]
    sequence: TokenSequence
    prompt_length: int

    @property
    def output(self) -> list[int]:
        return self.tokens[self.prompt_length :]


class Bigrams:
    """A language model: what comes next depends on the last token."""

    def __init__(self, size: int, seed: int) -> None:
        self._table = np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32)

    def logits(self, texts: list[list[int]]) -> Any:
        return self._table[[tokens[-1] for tokens in texts]]


@dataclass
class Loop(RecordKeeper):
    """Decodes all texts together until each has ended."""

    session: SamplingSession
    model: Bigrams
    texts: list[Text] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.session)

    def add(self, prompt: list[int], max_tokens: int, **keys: Any) -> Text:
        stop = StopConditions(frozenset({END}), max_tokens=max_tokens, prompt_length=len(prompt))
        sequence = self.session.begin(keys, stop, ending_token=END)
        assert sequence is not None
        text = Text(list(prompt), sequence, len(prompt))
        self.texts.append(text)
        return text

    def run(self) -> None:
        while running := [text for text in self.texts if not text.sequence.ended]:
            self._step(running)

    def _step(self, running: list[Text]) -> None:
        with self.lock:
            step = StepRows(
                lines=list(range(len(running))),
                sequences=[text.sequence for text in running],
                positions=[len(text.output) for text in running],
            )
            outcomes = self.session.decide(self.model.logits([t.tokens for t in running]), step)
            records: list[Entry] = []
            for text, outcome in zip(running, outcomes, strict=True):
                text.tokens.append(outcome.token_id)
                # Nothing can come between: what is taken is emitted.
                records += text.sequence.sampled(outcome) + text.sequence.confirm()
            self.session.record(records)

    def settled(self) -> list[Entry]:
        return []

    def open_sequences(self) -> list[TokenSequence]:
        return [text.sequence for text in self.texts if not text.sequence.ended]


# The host ends here.


class Numbers(EntropySource):
    """A source that counts."""

    name = "numbers"
    blocks = False
    drawn = 0

    def get_random_bytes(self, n: int) -> bytes:
        self.drawn += n
        return Random(self.drawn).randbytes(n)


def test_its_ledger_passes_the_checks(tmp_path: Path) -> None:
    source = Numbers()
    settings = Settings.load(entropy_source_type="numbers", ledger_dir=tmp_path, sample_count=64)
    facts = EngineFacts(engine="loop", model="bigrams")
    session = SamplingSession(facts, settings, sources={"numbers": source})
    loop = Loop(session, Bigrams(size=12, seed=3))
    for number in range(20):
        loop.add([number % 12, 5], 30, qr_request_key=f"text {number}", qr_trial=number)
    loop.run()
    loop.close()
    session.close()
    (file,) = tmp_path.iterdir()
    genesis, *lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert (genesis["kind"], genesis["engine"], genesis["model"]) == ("genesis", "loop", "bigrams")
    texts = [
        EmittedText(
            request_key=f"text {number}", trial=str(number), tokens=tuple(loop.texts[number].output)
        )
        for number in range(20)
    ]
    check_ledger(lines, texts, bytes_drawn=source.drawn)
    assert all(text.tokens[-1] == END or len(text.tokens) == 30 for text in texts)
    assert sum(len(text.tokens) for text in texts) > 60


@pytest.mark.parametrize("module", [qr_sampler, qr_sampler.host, qr_sampler.testing])
def test_it_needs_public_names_only(module: Any) -> None:
    tree = ast.parse(Path(__file__).read_text("utf-8"))
    imported = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == module.__name__
        for alias in node.names
    ]
    assert imported
    assert set(imported) <= set(module.__all__)
    of_others = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) != "self"
    ]
    assert [name for name in of_others if name.startswith("_") and name[-2:] != "__"] == []


def test_it_is_short() -> None:
    parts = [inspect.getsource(part).splitlines() for part in (Text, Bigrams, Loop)]
    assert sum(map(len, parts)) <= MOST_LINES
