# SPDX-License-Identifier: Apache-2.0
"""The thread that keeps records up lives on, whatever it meets."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from qr_sampler_vllm.runners import engines

PATIENCE_S = 60.0


class Failing:
    """A runner that raises in its first turn."""

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error
        self.kept_up = threading.Event()

    def keep_up(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.kept_up.set()

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing remains."""


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), KeyboardInterrupt()])
def test_the_thread_that_keeps_up_goes_on(
    error: BaseException, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_defects", engines.DefectLog("the thread", "it goes on"))
    config: Any = SimpleNamespace()
    runner, owner = Failing(error), Failing(error)
    with caplog.at_level(logging.ERROR, logger="qr_sampler"):
        engines.register(config, runner, owner)
        assert runner.kept_up.wait(timeout=PATIENCE_S)
    assert type(error).__name__ in caplog.text
