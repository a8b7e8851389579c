# SPDX-License-Identifier: Apache-2.0
"""Measures time and memory of a report, with their growth: tables of made-up tokens, analysed.

Run ``python report_size.py DIR TOKENS…``; it prints one line for each number of tokens.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import special

from qr_sampler_lab.tables.arrow import TOKENS, batch_of
from qr_sampler_lab.tables.columns import Labels, TokenChunk
from qr_sampler_lab.tables.files import TableFile

CHUNK = 2**17
BLOCK_BYTES = 1024
DISTINCT = 16
"""Chunks that are made up; they come again and again."""
ROWS = 32
"""Rows of a step, which share a draw."""


def labels(codes: object, *names: str | None) -> Labels:
    """Returns labels of codes."""
    return Labels(np.asarray(codes, dtype=np.int32), names)


def made_up(start: int, rng: np.random.Generator) -> TokenChunk:
    """Returns honest tokens of three arms, in the form that an engine's ledger gives them."""
    index = np.arange(start, start + CHUNK, dtype=np.int64)
    draw = index // ROWS
    bits = rng.integers(0, 2**63, size=(CHUNK, 2))
    block_sum = np.rint(
        127.5 * BLOCK_BYTES + 73.9003 * np.sqrt(BLOCK_BYTES) * rng.normal(size=CHUNK)
    ).astype(np.int64)
    block_ones = np.rint(4 * BLOCK_BYTES + np.sqrt(2 * BLOCK_BYTES) * rng.normal(size=CHUNK))
    z = (block_sum - 127.5 * BLOCK_BYTES) / (np.sqrt((256**2 - 1) / 12) * np.sqrt(BLOCK_BYTES))
    zeros, ones = np.zeros(CHUNK, np.int64), np.ones(CHUNK, np.int64)
    entropy = rng.gamma(2.0, 0.6, size=CHUNK)
    none, arm = zeros, (index // 200) % 3
    return TokenChunk(
        received_ns=draw * 20_000_000 + 5_000_000,
        request_ns=draw * 20_000_000 + (bits[:, 0] % 4_000_000)[draw - draw[0]],
        offset=index % ROWS * BLOCK_BYTES,
        u=special.ndtr(z),
        statistic=z,
        lattice_step=np.full(CHUNK, 1.7e-4),
        block_bytes=np.full(CHUNK, BLOCK_BYTES),
        block_sum=block_sum,
        block_ones=block_ones.astype(np.int64),
        temperature=np.full(CHUNK, 0.7),
        entropy_nats=entropy,
        varentropy_nats2=entropy * rng.uniform(size=CHUNK),
        probability=rng.uniform(size=CHUNK),
        rank=rng.geometric(0.6, size=CHUNK) - 1,
        candidates=np.full(CHUNK, 50_000),
        token_id=bits[:, 1] % 50_000,
        position=index % 200,
        sequence=index // 200,
        draw=draw,
        numbers=ones,
        emitted=ones.astype(np.int8),
        fallback=zeros.astype(np.bool_),
        jit=ones.astype(np.bool_),
        run=labels(none, "made up"),
        source=labels(none, "device"),
        requested=labels(none, "device"),
        device=labels(none, "QRNG 7"),
        amplifier=labels(none, "zscore_mean"),
        baseline=labels(none, ""),
        condition=labels(arm, "HI", "LO", "baseline"),
        trial=labels(index // 100_000 % 1000, *map(str, range(1000))),
        role=labels(none, None),
        outcome=labels(none, None),
    )


def later(chunk: TokenChunk, tokens: int) -> TokenChunk:
    """Returns the same tokens as if so many had come before them."""
    shifts = {"received_ns": 20_000_000 // ROWS, "request_ns": 20_000_000 // ROWS}
    moved = {name: getattr(chunk, name) + tokens * each for name, each in shifts.items()}
    return replace(
        chunk,
        **moved,
        draw=chunk.draw + tokens // ROWS,
        sequence=chunk.sequence + tokens // 200,
    )


def write(folder: Path, tokens: int) -> Path:
    """Writes a table of made-up tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    table = TableFile(folder, "tokens", TOKENS, "parquet")
    rng = np.random.default_rng(1)
    drawn = [made_up(0, rng) for _ in range(DISTINCT)]
    for number in range(-(-tokens // CHUNK)):
        first = drawn[number % DISTINCT]
        table.add(batch_of(later(first, number * CHUNK)))
    table.finish({"ledgers": []})
    return table.path


def main() -> None:
    """Measures."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("tokens", type=int, nargs="+")
    told = arguments.parse_args()
    for tokens in told.tokens:
        path = write(told.folder / str(tokens), tokens)
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "qr_sampler_cli", "analyze", str(path)]
        subprocess.run([*command, "--by", "condition"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"{tokens:,} tokens: {path.stat().st_size / tokens:.1f} B a token, "
            f"{time.monotonic() - began:.1f} s, "
            f"{after.ru_utime - before.ru_utime:.1f} s of processor time, "
            f"{after.ru_maxrss / 1024:.0f} MB at most so far",
            flush=True,
        )
        path.unlink()


if __name__ == "__main__":
    main()
