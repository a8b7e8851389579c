# SPDX-License-Identifier: Apache-2.0
"""What choosing tokens costs under Transformers, beside its own sampling, turn and turn about.

Run it with ``python -m benchmarks.transformers_cost``. It times the part of a step between the
logits and the tokens: Transformers' own processors, softmax and ``multinomial``, or those of an
entropy source, which force the rows and leave the rest to ``argmax``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import LogitsProcessorList, TopPLogitsWarper

from qr_sampler import Settings
from qr_sampler_local import LocalSampler
from qr_sampler_local.transformers import Batch

__all__ = ["main"]

VOCAB_SIZE: Final = 151_936
BATCHES: Final = (1, 8)

GATES: Final[Mapping[str, float]] = {"top_p=0.9": 0.25, "no filter": 0.8}
"""The most that a step may cost, as a part of what Transformers needs for the same."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Times of the sampling part of a step, in milliseconds: the first decile over all steps.

    Whatever else the machine does adds to a time, and most to those of several threads.
    """

    logits: str
    rows: int
    filters: str
    theirs_ms: float
    ours_ms: float

    @property
    def ratio(self) -> float:
        """Our time as a part of theirs."""
        return self.ours_ms / self.theirs_ms

    @property
    def is_met(self) -> bool:
        """Whether it is as small as it has to be."""
        return self.ratio <= GATES[self.filters]


def logits_like(kind: str, rows: int) -> Any:
    """Returns made-up logits, shape ``(rows, V)``.

    Args:
        kind: ``"flat"`` for standard normal ones; ``"typical"`` for a bulk of low ones and 1,024
            that fall off as the logarithm of their rank, with an entropy of about 2.3 nats.
        rows: Number of rows.
    """
    generator = torch.Generator().manual_seed(rows)
    made = torch.randn(rows, VOCAB_SIZE, generator=generator)
    if kind == "typical":
        head = 20.0 - 1.7 * torch.log(torch.arange(1, 1025, dtype=torch.float32))
        for row in made.mul_(2.0):
            row[torch.randperm(VOCAB_SIZE, generator=generator)[:1024]] = head
    return made


def compare(kind: str, rows: int, rounds: int, ledger: Path) -> list[Comparison]:
    """Returns the comparison for each filter, measured turn and turn about in this process."""
    logits = logits_like(kind, rows)
    settings = Settings.load(entropy_source_type="system", ledger_dir=ledger)
    with LocalSampler("none", settings) as sampler:
        contenders: dict[tuple[str, str], Callable[[Any], Any]] = {}
        for name, top_p in (("top_p=0.9", 0.9), ("no filter", 1.0)):
            contenders[name, "theirs"] = _theirs(top_p)
            contenders[name, "ours"] = _ours(sampler, rows, top_p)
        spent: dict[tuple[str, str], list[float]] = {key: [] for key in contenders}
        for turn in range(rounds + 5):
            for key, choose in contenders.items():
                scores = logits.clone()
                began_s = time.perf_counter()
                choose(scores)
                if turn >= 5:
                    spent[key].append(time.perf_counter() - began_s)
    return [
        Comparison(
            kind,
            rows,
            name,
            *(
                1e3 * statistics.quantiles(spent[name, whose], n=10)[0]
                for whose in ("theirs", "ours")
            ),
        )
        for name in GATES
    ]


def _theirs(top_p: float) -> Callable[[Any], Any]:
    """Returns what ``do_sample=True`` does between the logits and the tokens."""
    processors = LogitsProcessorList([TopPLogitsWarper(top_p)] if top_p < 1.0 else [])

    def choose(scores: Any) -> Any:
        probabilities = torch.nn.functional.softmax(processors(None, scores), dim=-1)
        return torch.multinomial(probabilities, num_samples=1).squeeze(1)

    return choose


def _ours(sampler: LocalSampler, rows: int, top_p: float) -> Callable[[Any], Any]:
    """Returns what ``TransformersSampler.generate`` does in its place."""
    options: dict[str, Any] = {"top_p": top_p, "top_k": 0, "fixed_temperature": 1.0}
    sequences = [sampler.sequence([1], end_tokens=[0], **options) for _ in range(rows)]
    batch = Batch(sampler, sequences, pads=False)

    def choose(scores: Any) -> Any:
        tokens = torch.argmax(batch.choose(scores), dim=-1)
        batch.observe([False] * rows)
        return tokens

    return choose


def table(comparisons: list[Comparison]) -> str:
    """Returns a Markdown table of *comparisons*."""
    lines = [
        "| logits | rows | filters | Transformers, ms | qr-sampler, ms | ratio | gate | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {each.logits} | {each.rows} | {each.filters} | {each.theirs_ms:.2f} "
        f"| {each.ours_ms:.2f} | {each.ratio:.3f} | {GATES[each.filters]:g} "
        f"| {'pass' if each.is_met else 'MISSED'} |"
        for each in comparisons
    ]
    return "\n".join(lines)


def main() -> int:
    """Measures, prints the table, and fails when a step costs more than it may."""
    parser = argparse.ArgumentParser(prog="transformers_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="number of steps")
    parser.add_argument("--threads", type=int, help="threads of torch; as many as it likes")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        comparisons = [
            found
            for kind in ("typical", "flat")
            for rows in BATCHES
            for found in compare(kind, rows, arguments.rounds, Path(folder))
        ]
    print(table(comparisons))
    return 0 if all(each.is_met for each in comparisons) else 1


if __name__ == "__main__":
    sys.exit(main())
