# SPDX-License-Identifier: Apache-2.0
"""Wherever Ctrl-C comes in a step, every byte and every token has its record."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import pytest

from qr_sampler_local.loop.interrupts import Uninterrupted


@contextmanager
def interrupted_at(name: str) -> Iterator[None]:
    """Sends SIGINT when a function called *name* begins for the first time."""

    def watch(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_name == name:
            sys.setprofile(before)
            signal.raise_signal(signal.SIGINT)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield
    finally:
        called = sys.getprofile() is not watch
        sys.setprofile(before)
        assert called, f"{name} was not called"


@pytest.mark.parametrize(
    "name",
    [
        "_emitted",  # The token before is being recorded.
        "put",
        "without_data",  # The bytes have just been drawn.
        "digest_of",
        "_do_without",
        "remembered",  # The tokens are being handed to their sequences.
        "end_with",
    ],
)
def test_an_interrupted_step_leaves_no_byte_unrecorded(
    make_loop: Callable[..., Any], text: Callable[..., Any], name: str
) -> None:
    loop = make_loop("near", "far")
    logits = loop.logits(3)
    logits[2] = -np.inf
    sequences = [
        loop.sequence(end_tokens=[], entropy_source=source) for source in ("near", "far", "near")
    ]

    def generate() -> None:
        with loop.sampler as sampler:
            sampler.step(logits, sequences)
            with interrupted_at(name):
                sampler.step(logits, sequences)

    with pytest.raises(KeyboardInterrupt):
        generate()
    # The step is whole, though nobody has been told its tokens.
    assert [len(sequence.tokens) for sequence in sequences] == [2, 2, 2]
    loop.check([text(sequence, settled=False) for sequence in sequences])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_tokens_that_arrive_are_recorded_whatever_interrupts_that(loop: Any) -> None:
    sequence = loop.sequence(end_tokens=[])

    def generate() -> None:
        with loop.sampler as sampler:
            loop.step(sequence)
            with interrupted_at("settle"):
                sampler.emitted(sequence)

    with pytest.raises(KeyboardInterrupt):
        generate()
    loop.check([sequence])


def test_a_second_interruption_does_not_wait() -> None:
    reached = []

    def wait() -> None:
        with Uninterrupted():
            signal.raise_signal(signal.SIGINT)
            reached.append(1)
            signal.raise_signal(signal.SIGINT)
            reached.append(2)

    with pytest.raises(KeyboardInterrupt):
        wait()
    assert reached == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_of_the_program_are_called_afterwards() -> None:
    called: list[str] = []
    before = signal.signal(signal.SIGINT, lambda *_: called.append("program"))
    try:
        with Uninterrupted(), Uninterrupted():
            signal.raise_signal(signal.SIGINT)
            called.append("block")
    finally:
        signal.signal(signal.SIGINT, before)
    assert called == ["block", "program"]


def test_other_threads_and_programs_that_ignore_it_are_left_alone() -> None:
    def enter() -> None:
        with Uninterrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    seen: list[object] = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        enter()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [before, signal.SIG_IGN]
