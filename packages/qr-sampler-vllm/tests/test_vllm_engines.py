# SPDX-License-Identifier: Apache-2.0
"""The thread that writes records lives on, whatever it meets."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from qr_sampler_vllm.runners import engines

PATIENCE_S = 60.0


class Flushed:
    """A runner that raises in its first flush."""

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error
        self.flushed = threading.Event()

    def flush(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.flushed.set()

    def write_overdue(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing remains."""


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), KeyboardInterrupt()])
def test_the_thread_that_writes_records_goes_on(
    error: BaseException, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_defects", engines.DefectLog("the thread", "it goes on"))
    config: Any = SimpleNamespace()
    runner, owner = Flushed(error), Flushed(error)
    with caplog.at_level(logging.ERROR, logger="qr_sampler"):
        engines.register(config, runner, owner)
        assert runner.flushed.wait(timeout=PATIENCE_S)
    assert type(error).__name__ in caplog.text
