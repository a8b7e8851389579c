# SPDX-License-Identifier: Apache-2.0
"""Tokens per pass of the model and time with four drafts, against no speculation and vLLM's n-gram.

``python -m benchmarks.tsd_drafting DIRECTORY`` distils a bigram table from the tiny model in
DIRECTORY and has it draft in engines that generate in turns, one and eight sequences at a time.
``--grow 50`` grows the model to 50 million parameters first, which leaves its text as it is.
``--check`` fails unless both modes save time somewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.grown_model import grown
from benchmarks.tsd_engines import (
    CONTENDERS,
    PROMPTS,
    WORKLOADS,
    Contender,
    EngineProcess,
    Workload,
    serve,
)

__all__ = ["main"]

SAMPLED_TEXTS: Final = 48
TEXT_TOKENS: Final = 200
HEAD_TOKENS: Final = 64
TEMPERATURE: Final = 0.7
BATCHES: Final = (1, len(PROMPTS))


class Found(NamedTuple):
    """What one engine did in one workload."""

    contender: Contender
    workload: str
    batch: int
    tokens_per_pass: float
    speed: float
    """Time without speculation, divided by its own: the median over rounds."""


def main() -> int:
    """Prints a Markdown table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="directory of the tiny model")
    parser.add_argument("--grow", type=float, default=0.0, help="millions of parameters to grow to")
    parser.add_argument("--tokens", type=int, default=100, help="tokens of each sequence")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that are measured")
    parser.add_argument("--check", action="store_true", help="fail unless both modes save time")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.model, arguments.serve)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = compared(arguments, Path(folder))
    print("\n".join(table(found)))
    return check(found) if arguments.check else 0


def compared(arguments: argparse.Namespace, folder: Path) -> list[Found]:
    """Returns what all engines did."""
    model = arguments.model
    table_file = folder / "bigram.npz"
    distil(model, table_file)
    if arguments.grow:
        say("growing the model")
        count = grown(model, folder / "grown", int(arguments.grow * 1e6))
        model = folder / "grown"
        print(f"{count:,} parameters\n")
    with contextlib.ExitStack() as running:
        engines = []
        for number, contender in enumerate(CONTENDERS, start=1):
            say(f"starting engine {number} of {len(CONTENDERS)}: {contender.title}")
            ledger = folder / f"ledger-{number}"
            engine = EngineProcess(contender, model, table_file, ledger)
            engines.append(running.enter_context(engine))
        return [each for workload in WORKLOADS for each in _measured(engines, workload, arguments)]


def _measured(
    engines: list[EngineProcess], workload: Workload, arguments: argparse.Namespace
) -> Iterator[Found]:
    for batch in BATCHES:
        name = f"{workload.name}, {batch}"
        seconds: dict[str, list[tuple[float, float]]] = {}
        # The first round warms up.
        for number in range(1 + arguments.rounds):
            say(f"{name} at a time: round {number} of {arguments.rounds}")
            for engine in engines:
                if not engine.contender.does(workload):
                    continue
                taken = engine.round(name, workload, batch, arguments.tokens)
                if number:
                    seconds.setdefault(engine.contender.title, []).append(taken)
        base = seconds[CONTENDERS[0].title]
        for engine in engines:
            if engine.contender.title not in seconds:
                continue
            pairs = list(zip(seconds[engine.contender.title], base, strict=True))
            yield Found(
                engine.contender,
                workload.name,
                batch,
                engine.tokens_per_pass(name),
                statistics.median(plain[0] / mine[0] for mine, plain in pairs),
            )


def distil(model_directory: Path, path: Path) -> None:
    """Saves a table that has learnt from texts of the model."""
    import torch
    from transformers import AutoModelForCausalLM

    from qr_sampler_tsd.proposers import save_proposer
    from qr_sampler_tsd.train import BigramDistiller, Examples

    say("distilling a table")
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.float32)
    vocab_size = model.config.vocab_size
    distiller = BigramDistiller(vocab_size, TEMPERATURE)
    with torch.no_grad():
        texts = model.generate(
            torch.randint(vocab_size, (SAMPLED_TEXTS, 1)),
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            min_new_tokens=TEXT_TOKENS,
            max_new_tokens=TEXT_TOKENS,
        )
        for text in texts:
            distiller.add(
                Examples.from_logits(
                    text.numpy(),
                    model(text[None]).logits[0].numpy(),
                    context_tokens=1,
                    kept=vocab_size,
                    temperature=TEMPERATURE,
                )
            )
    save_proposer(path, distiller.table(HEAD_TOKENS))


def table(found: list[Found]) -> Iterator[str]:
    """Yields the lines of a Markdown table, one row per engine."""
    cases = [(workload.name, batch) for workload in WORKLOADS for batch in BATCHES]
    headings = [f"{name}, {batch} sequence{'s' * (batch > 1)}" for name, batch in cases]
    yield f"| tokens per pass, speed | {' | '.join(headings)} |"
    yield f"| --- |{' ---: |' * len(cases)}"
    by_case = {(each.contender.title, each.workload, each.batch): each for each in found}
    for contender in CONTENDERS:
        cells = [by_case.get((contender.title, *case)) for case in cases]
        shown = " | ".join(
            f"{each.tokens_per_pass:.2f}, {each.speed:.2f}" if each else "-" for each in cells
        )
        yield f"| {contender.title} | {shown} |"


def check(found: list[Found]) -> int:
    """Returns 1, and says so, unless each mode saves time in at least one workload."""
    status = 0
    for mode in ("exact_match", "canonical"):
        best = max(
            (each for each in found if each.contender.mode == mode), key=lambda one: one.speed
        )
        passed = best.speed > 1.0
        where = f"{best.contender.title}, {best.workload}, {best.batch} at a time"
        verdict = "pass" if passed else "MISSED"
        print(f"{mode}: {best.speed:.2f} times as fast at best ({where}): {verdict}")
        status |= not passed
    return status


def say(what: str) -> None:
    """Tells who waits what is going on."""
    print(f"... {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
