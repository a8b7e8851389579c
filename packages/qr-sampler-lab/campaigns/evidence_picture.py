# SPDX-License-Identifier: Apache-2.0
"""Draws ``docs/evidence.svg``: z of an honest source and of a biased one, as their tokens come.

Run ``python evidence_picture.py FILE``. A host without a model writes a real ledger, whose tokens
are then read back in the order of time.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from qr_entropy_sources.mock_uniform import MockUniformSource
from qr_sampler import Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.testing import ToyHost
from qr_sampler_lab.report.adding.paths import SumPath
from qr_sampler_lab.report.analysis import Options
from qr_sampler_lab.report.figures import running_z
from qr_sampler_lab.report.showing.drawing import drawn
from qr_sampler_lab.tables.columns import TokenChunk
from qr_sampler_lab.tables.reading import token_chunks

MEANS = {"honest: bytes of mean 127.5": 127.5, "biased: bytes of mean 127.6": 127.6}
BLOCK_BYTES = 10_240


def ledger_of(folder: Path, mean: float, tokens: int, seed: int) -> Path:
    """Writes a ledger of tokens that bytes of a mean have chosen."""
    settings = Settings.load(
        entropy_source_type="mock_uniform", sample_count=BLOCK_BYTES, ledger_dir=folder
    )
    source = MockUniformSource(mean=mean, seed=seed)
    session = SamplingSession(
        EngineFacts(engine="toy", model="none"), settings, sources={"mock_uniform": source}
    )
    host = ToyHost(session, seed=seed)
    made = 0
    while made < tokens:
        while len(host.running) < 20:
            host.add(100)
        made += len(host.running)
        host.step()
        host.flush()
    host.close()
    return folder


def main() -> None:
    """Draws."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("file", type=Path)
    arguments.add_argument("--tokens", type=int, default=4_000)
    told = arguments.parse_args()
    paths = []
    with tempfile.TemporaryDirectory() as folder:
        for seed, (name, mean) in enumerate(MEANS.items(), start=1):
            ledger = ledger_of(Path(folder) / str(seed), mean, told.tokens, seed)
            tokens = TokenChunk.concatenated(token_chunks([ledger]))
            path = SumPath()
            path.add(np.asarray(tokens.statistic))
            paths.append((name, path))
    figure = running_z(
        paths,
        Options(),
        name="evidence",
        title="Evidence as the tokens come",
        what="tokens",
    )
    svg = drawn(figure).replace("<svg", '<svg width="640"', 1)
    told.file.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n{svg}', "utf-8")


if __name__ == "__main__":
    main()
