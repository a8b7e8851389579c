# SPDX-License-Identifier: Apache-2.0
"""The tiny model, loaded once, and a sampler whose ledger is held against what was generated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import Settings
from qr_sampler.records.files import ledgers_in
from qr_sampler.records.reader import read_ledger
from qr_sampler.testing import EmittedText, WitnessSource, check_ledger

END_TOKEN = 0


class Run:
    """A sampler of the tiny model, with a ledger and a source that counts."""

    def __init__(self, model: Any, folder: Path, **settings: Any) -> None:
        from qr_sampler_local.transformers import TransformersSampler

        self.folder = folder
        self.source = WitnessSource()
        loaded = {
            "entropy_source_type": "witness",
            "max_ks_distance": 1.0,
            "fallback_mode": "error",
            "sample_count": 16,
            "ledger_dir": folder,
            "ledger_model_digest": False,
            **settings,
        }
        self.model = model
        self.sampler = TransformersSampler(
            model, Settings.load(**loaded), sources={"witness": self.source}
        )
        self._calls = 0
        self._lines: list[dict[str, Any]] | None = None

    def generate(self, ids: Any, **arguments: Any) -> Any:
        """Generates from *ids* with little to say about it; each prompt is a request of its own."""
        arguments.setdefault("attention_mask", ids.new_ones(ids.shape))
        arguments.setdefault("pad_token_id", END_TOKEN)
        arguments.setdefault("options", self.named(len(ids)))
        return self.sampler.generate(ids, **arguments)

    def named(self, prompts: int) -> list[dict[str, Any]]:
        """Returns options that name requests so that their names are in order."""
        self._calls += 1
        return [{"request_key": f"{self._calls}.{row}"} for row in range(prompts)]

    def sequences(self) -> list[dict[str, Any]]:
        """Returns the lines of the sequences, in the order of the names of their requests."""
        return sorted(self.kind("sequence"), key=lambda line: str(line["request_key"]))

    def lines(self) -> list[dict[str, Any]]:
        """Ends the run as the end of a ``with`` block does; returns the lines of its ledger."""
        self.sampler.__exit__(None, None, None)
        if self._lines is None:
            self._lines = [line for file in ledgers_in(self.folder) for line in read_ledger(file)]
        return self._lines

    def kind(self, kind: str) -> list[dict[str, Any]]:
        """Returns the lines of one kind."""
        return [line for line in self.lines() if line["kind"] == kind]

    def texts(self) -> list[list[int]]:
        """Returns the tokens of each sequence that may have been emitted."""
        return [
            [line["token_id"] for line in self.lines() if self._is_of(line, sequence)]
            for sequence in self.sequences()
        ]

    @staticmethod
    def _is_of(line: Mapping[str, Any], sequence: Mapping[str, Any]) -> bool:
        return (
            line["kind"] in ("token", "forced", "undecided")
            and line["sequence"] == sequence["sequence"]
            and line["emitted"] is not False
        )

    def check(self, texts: Sequence[Sequence[int]], *, settled: bool = True) -> None:
        """Holds the ledger against the texts of its sequences and the account of the source."""
        sequences = self.sequences()
        assert len(sequences) == len(texts)
        emitted = [
            EmittedText(
                request_key=sequence["request_key"],
                sequence=sequence["sequence"],
                tokens=tuple(tokens),
                trial=sequence.get("trial"),
                condition=sequence.get("condition"),
                settled=settled,
            )
            for sequence, tokens in zip(sequences, texts, strict=True)
        ]
        check_ledger(self.lines(), emitted, bytes_drawn=self.source.bytes_drawn)


@pytest.fixture(scope="session")
def model(tiny_dir: Path) -> Any:
    """The tiny model."""
    import torch
    from transformers import AutoModelForCausalLM

    # It is so small that several threads only wait for each other.
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(tiny_dir).eval()


@pytest.fixture(scope="session")
def tokenizer(tiny_dir: Path) -> Any:
    """Its tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_dir)


@pytest.fixture
def run(model: Any, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Makes samplers of the tiny model; they are closed in the end."""
    made: list[Run] = []

    def make(other_model: Any = None, **settings: Any) -> Run:
        folder = tmp_path / f"run-{len(made)}"
        folder.mkdir()
        made.append(Run(other_model or model, folder, **settings))
        return made[-1]

    yield make
    for each in made:
        each.sampler.close()


def prompts(*lengths: int) -> tuple[Any, Any]:
    """Returns prompts of certain lengths, padded on the left, and their mask."""
    import torch

    longest = max(lengths)
    ids = [
        [END_TOKEN] * (longest - length) + [7 + row + column for column in range(length)]
        for row, length in enumerate(lengths)
    ]
    mask = [[0] * (longest - length) + [1] * length for length in lengths]
    return torch.tensor(ids), torch.tensor(mask)


@pytest.fixture(name="prompts")
def _prompts() -> Callable[..., tuple[Any, Any]]:
    return prompts
