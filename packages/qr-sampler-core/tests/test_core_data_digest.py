# SPDX-License-Identifier: Apache-2.0
"""The digest of what a draw has brought, computed while its bytes exist."""

from __future__ import annotations

import hashlib
import os
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Event

import numpy as np
import pytest

from qr_sampler import Rows, SamplingParameters, SamplingPipeline, Settings
from qr_sampler.sampling import data_digest
from qr_sampler.sampling.columns import StepColumns
from qr_sampler.sampling.data_digest import SHORT_BYTES, digest_of
from qr_sampler.testing import RecordedEntropySource


@pytest.mark.parametrize("size", [0, 1, SHORT_BYTES, SHORT_BYTES + 1, 10 * SHORT_BYTES])
def test_a_digest_is_that_of_the_bytes(size: int) -> None:
    data = Random(size).randbytes(size)
    assert digest_of(data).result(timeout=60) == hashlib.sha256(data).digest()


def test_when_no_thread_takes_work_any_more_it_is_computed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = ThreadPoolExecutor(1)
    ended.shutdown()
    monkeypatch.setattr(data_digest._hashing, "get", lambda: ended)
    data = bytes(2 * SHORT_BYTES)
    assert digest_of(data).result(timeout=0) == hashlib.sha256(data).digest()


def test_a_forked_process_waits_for_no_thread_of_the_one_above_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = Random(2).randbytes(2 * SHORT_BYTES)
    released = Event()
    busy = ThreadPoolExecutor(1)
    busy.submit(released.wait, 60)
    monkeypatch.setattr(data_digest._hashing, "get", lambda: busy)
    try:
        pending = digest_of(data)
        with pytest.raises(futures.TimeoutError):
            pending.result(timeout=0.01)
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: -1)
            assert pending.result(timeout=0) == hashlib.sha256(data).digest()
    finally:
        released.set()
        busy.shutdown()


@pytest.mark.parametrize("kept", [False, True])
def test_a_step_keeps_a_digest_only_for_a_ledger(kept: bool, tmp_path: Path) -> None:
    data = Random(1).randbytes(3 * 16)
    settings = Settings.load(ledger_dir=tmp_path if kept else None)
    pipeline = SamplingPipeline(settings, RecordedEntropySource(data))
    rows = Rows([SamplingParameters(sample_count=size) for size in (8, 24, 16)])
    step = pipeline.sample(np.zeros((3, 5), np.float32), rows)
    assert step is not None
    columns = StepColumns(step)
    assert columns.data_sha256 == (hashlib.sha256(data).hexdigest() if kept else "")
    assert columns.offsets == [0, 8, 32]
