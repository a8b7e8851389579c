# SPDX-License-Identifier: Apache-2.0
"""The benchmark of ledgers compares engines that write one with engines that write none."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from qr_sampler import EntropySource, Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.host.journal import Journal
from qr_sampler.host.session import session_records
from qr_sampler.sampling import pipeline
from qr_sampler.sampling.data_digest import digest_of
from qr_sampler.testing import ToyHost, chained_lines

PACKAGE = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not (PACKAGE / "benchmarks").exists(),
    reason="benchmarks are no part of the source distribution",
)


class Device(EntropySource):
    name = "device"
    blocks = False
    _script = Random(0)

    def get_random_bytes(self, n: int) -> bytes:
        return self._script.randbytes(n)


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PACKAGE))
    # So that they are put back.
    monkeypatch.setattr(session_records, "Journal", Journal)
    monkeypatch.setattr(pipeline, "digest_of", digest_of)
    return importlib.import_module("benchmarks.ledger_switch").LedgerSwitch()


def test_nothing_is_written_while_the_ledger_is_off(switch: Any, tmp_path: Path) -> None:
    settings = Settings.load(
        entropy_source_type="device", sample_count=16, max_ks_distance=1.0, ledger_dir=tmp_path
    )
    facts = EngineFacts(engine="toy", model="none")
    host = ToyHost(SamplingSession(facts, settings, sources={"device": Device()}))
    tokens = 0
    for switch.on in (False, True, False):
        # As in the benchmark, rounds end with their requests, and all records are written.
        request = host.add(5)
        while not request.finished:
            host.step()
        tokens = len(request.output) if switch.on else tokens
        host.step()
        host.flush()
    switch.on = True
    host.close()
    (ledger,) = tmp_path.glob("*.jsonl")
    lines = chained_lines(ledger)
    kinds = Counter(line["kind"] for line in lines)
    assert kinds["draw"] == kinds["token"] == tokens > 0
    assert all(len(line["data_sha256"]) == 64 for line in lines if line["kind"] == "draw")


def test_a_switch_of_nothing_is_refused(switch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(session_records, "Journal")
    with pytest.raises(RuntimeError, match="nothing is switched"):
        type(switch)()
