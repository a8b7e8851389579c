# SPDX-License-Identifier: Apache-2.0
"""A model that is a hash of the text, an engine that samples from it, and what may be done then."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qr_sampler import EntropySource, Settings
from qr_sampler.arrays import Logits
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.testing import ToyHost
from qr_sampler_cli.audit.auditor import AuditedRun, audit_runs
from qr_sampler_cli.audit.files import ledgers_of
from qr_sampler_cli.audit.rederivation.rung import ModelUnderAudit

Fields = dict[str, Any]

FILTERS: tuple[Fields, ...] = (
    {},
    {"top_k": 5},
    {"top_p": 0.8},
    {"min_p": 0.1},
    {"top_n_sigma": 1.0},
    {"typical_p": 0.8},
    {"top_k": 30, "top_p": 0.9, "min_p": 0.01, "truncate_first": True},
)
STRATEGIES: tuple[Fields, ...] = (
    {"temperature_strategy": "edt"},
    {"temperature_strategy": "edt_paper", "top_p": 0.9},
    {"temperature_strategy": "dynatemp"},
    {"temperature_strategy": "varentropy", "varentropy_drift_weight": 0.5, "min_p": 0.02},
)
AMPLIFIERS: tuple[Fields, ...] = (
    {"signal_amplifier_type": "uniform53", "sample_count": 8},
    {"signal_amplifier_type": "bit_zscore"},
)


class ToyModel:
    """Logits that follow from the last eight ids by a hash.

    Args:
        seed: Another one is another model.
        vocab_size: Number of tokens.
    """

    longest = 10_000

    def __init__(self, seed: int = 0, vocab_size: int = 64) -> None:
        self.seed = seed
        self.vocab_size = vocab_size

    def row(self, ids: Sequence[int]) -> Logits:
        """Returns the logits after a text."""
        text = np.array([self.seed, *ids[-8:]], dtype=np.int64).tobytes()
        seed = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
        made: Logits = 2.5 * np.random.default_rng(seed).standard_normal(
            self.vocab_size, dtype=np.float32
        )
        return made

    def logits(self, sequences: Sequence[Any], first: Sequence[int]) -> Iterator[Any]:
        """Yields the logits in slices of at most seven rows."""
        for line, ids in enumerate(sequences):
            for begin in range(first[line], len(ids), 7):
                ends = range(begin, min(begin + 7, len(ids)))
                yield line, begin, np.stack([self.row(ids[: end + 1]) for end in ends])


class GeneratorSource(EntropySource):
    """Hands out the bytes of a generator."""

    name = "device"

    def __init__(self, seed: int) -> None:
        self._script = Random(seed)

    def get_random_bytes(self, n: int) -> bytes:
        return self._script.randbytes(n)


class Engine:
    """Writes the ledger of requests that are decoded at once, and a file of their prompts.

    Args:
        folder: Receives both.
        model: Gives the logits.
        error: Standard deviation of the error that each logit has here.
        dtype: What the genesis says.
        seed: Of the bytes.
    """

    def __init__(
        self,
        folder: Path,
        model: ToyModel,
        *,
        error: float = 0.0,
        dtype: str = "float32",
        seed: int = 1,
    ) -> None:
        self.folder, self.model = folder, model
        self.prompts = folder / "prompts"
        self._errors = np.random.default_rng(seed)
        self._error = error
        self._session = SamplingSession(
            EngineFacts(engine="toy 1.0", model="hash", host={"dtype": dtype}),
            Settings.load(
                entropy_source_type="device",
                sample_count=1024,
                max_ks_distance=1.0,
                fixed_temperature=0.9,
                ledger_dir=folder / "ledger",
            ),
            sources={"device": GeneratorSource(seed)},
        )
        self._host = ToyHost(self._session)
        self._prompts: dict[int, list[int]] = {}

    def add(self, key: str, tokens: int, **options: Any) -> None:
        """Takes in a request."""
        request = self._host.add(tokens, request_key=key, **options)
        self._prompts[id(request)] = [len(key), *key.encode()[:40]]
        with self.prompts.open("a") as file:
            ids = [each % self.model.vocab_size for each in self._prompts[id(request)]]
            self._prompts[id(request)] = ids
            file.write(json.dumps({"request_key": key, "token_ids": ids}) + "\n")

    def run(self) -> Path:
        """Decodes all requests; returns the ledger."""
        while self._host.running:
            texts = [self._prompts[id(each)] + each.output for each in self._host.running]
            rows = np.stack([self.model.row(text) for text in texts])
            if self._error:
                rows += self._errors.normal(0.0, self._error, rows.shape).astype(np.float32)
            self._host.step(rows)
        self._host.close()
        self._session.close()
        (ledger,) = (self.folder / "ledger").glob("*.jsonl")
        return ledger


def generated(
    folder: Path,
    kinds: Sequence[Fields] = ({},),
    *,
    answers: int = 4,
    tokens: int = 60,
    model: ToyModel | None = None,
    **more: Any,
) -> Path:
    """Returns the ledger of *answers* answers of every kind; many end before they have *tokens*."""
    engine = Engine(folder, model or ToyModel(), **more)
    for index in range(answers):
        for number, options in enumerate(kinds):
            engine.add(f"answer {index} of kind {number}", tokens, **options)
    return engine.run()


def audited(
    ledger: Path,
    *,
    model: ToyModel | None = None,
    dtype: str = "float32",
    prompts: Path | None = None,
) -> AuditedRun:
    """Returns what the audit says of a ledger whose prompts are beside its folder."""
    under_audit = ModelUnderAudit(
        model=model or ToyModel(),
        dtype=dtype,
        prompts=prompts or ledger.parent.parent / "prompts",
    )
    (run,) = audit_runs(ledgers_of([ledger]), under_audit=under_audit)
    return run


def lines_of(ledger: Path) -> list[Fields]:
    """Returns the lines of a ledger."""
    return [json.loads(line) for line in ledger.read_bytes().splitlines()]


def rewritten(ledger: Path, edit: Callable[[list[Fields]], None]) -> Path:
    """Returns a ledger whose chain is computed anew after *edit* has changed its lines."""
    lines = lines_of(ledger)
    edit(lines)
    prev, told = "0" * 64, []
    for n, fields in enumerate(lines):
        fields["n"], fields["prev"] = n, prev
        if fields["kind"] == "close":
            fields["head"] = prev
        made = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
        prev = hashlib.sha256(made).hexdigest()
        told.append(made + b"\n")
    folder = ledger.parents[1] / "rewritten"
    folder.mkdir(exist_ok=True)
    path = folder / ledger.name
    path.write_bytes(b"".join(told))
    return path


def tokens_of(lines: Sequence[Fields]) -> list[Fields]:
    """Returns the lines of tokens."""
    return [line for line in lines if line["kind"] == "token"]


@pytest.fixture
def toys() -> SimpleNamespace:
    """Everything above."""
    return SimpleNamespace(
        filters=FILTERS,
        strategies=STRATEGIES,
        amplifiers=AMPLIFIERS,
        model=ToyModel,
        engine=Engine,
        generated=generated,
        audited=audited,
        lines_of=lines_of,
        rewritten=rewritten,
        tokens_of=tokens_of,
    )
