# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while something must not stop between two of its steps."""

from __future__ import annotations

import signal
import threading

import pytest

from qr_sampler_cli.terminal.signals import interruption


def test_the_first_one_is_noted_and_the_second_one_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interruption() as came:
        assert not came()
        signal.raise_signal(signal.SIGINT)
        assert came()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_one_inside_another_tells_both() -> None:
    with interruption() as outer:
        with interruption() as inner:
            signal.raise_signal(signal.SIGINT)
            assert inner()
            assert outer()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_another_thread_learns_of_none() -> None:
    seen: list[bool] = []

    def work() -> None:
        with interruption() as came:
            signal.raise_signal(signal.SIGINT)
            seen.append(came())

    with interruption():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == [False]
