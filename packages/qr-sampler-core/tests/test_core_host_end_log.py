# SPDX-License-Identifier: Apache-2.0
"""An outage that ends every request fills no log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from qr_sampler import EntropyUnavailableError, Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.host.session import end_log
from qr_sampler.host.session.end_log import EARLY_ENDS_EVERY_S, EarlyEndLog
from qr_sampler.testing import ConstantEntropySource, ToyHost


class DeadSource(ConstantEntropySource):
    """A source that has nothing to give."""

    def get_random_bytes(self, n: int) -> bytes:
        raise EntropyUnavailableError(self.name, f"no {n} bytes: the device is gone")


def test_ends_are_added_up_for_the_next_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    monkeypatch.setattr(end_log.time, "monotonic", lambda: now)
    log = EarlyEndLog(logging.getLogger("test"))
    for _ in range(1_000):
        log.ended(3, "the device is gone")
        now += EARLY_ENDS_EVERY_S / 512
    assert [record.getMessage() for record in caplog.records] == [
        "the device is gone; 3 sequences end early",
        "the device is gone; 1536 sequences end early",
    ]


def test_a_dead_source_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings.load(
        entropy_source_type="device",
        fallback_mode="end_request",
        ledger_dir=tmp_path,
        max_ks_distance=1,
        sample_count=4,
    )
    sources = {"device": DeadSource(name="device")}
    facts = EngineFacts(engine="toy", model="none")
    host = ToyHost(SamplingSession(facts, settings, sources=sources))
    for _ in range(50):
        host.add(1)
        host.step()
    host.close()
    told = [record for record in caplog.records if "end early" in record.getMessage()]
    assert len(told) == 1
