# SPDX-License-Identifier: Apache-2.0
"""A sampler for a loop of one's own: its tokens, and a ledger of what it has emitted."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pytest

from qr_sampler import ENTROPY_SOURCES, EngineFields, Settings
from qr_sampler.testing import records_in
from qr_sampler_local import LEFT_TO_CALLER, LocalSampler
from qr_sampler_local.loop import lifetimes

END = 9


class ReaderError(Exception):
    """Somebody who reads a text has failed."""


def test_rows_end_at_different_times(loop: Any) -> None:
    with loop.sampler:
        sequences = [loop.sequence(max_tokens=20, request_key=f"text {n}") for n in range(5)]
        emitted: list[list[int]] = [[] for _ in sequences]
        while not all(sequence.ended for sequence in sequences):
            ended = [sequence.ended for sequence in sequences]
            tokens = loop.step(*sequences)
            assert loop.source.requests[-1] == 64 * ended.count(False)
            for own, over, token in zip(emitted, ended, tokens, strict=True):
                if over:
                    assert token == END
                else:
                    own.append(token)
    assert [sequence.tokens for sequence in sequences] == emitted
    assert len({len(own) for own in emitted}) > 2
    for sequence in sequences:
        reason = "stop" if sequence.tokens[-1] == END else "length"
        assert sequence.finish_reason == reason
    loop.check(sequences)


def test_one_draw_serves_all_rows_of_a_source_in_a_step(make_loop: Callable[..., Any]) -> None:
    loop = make_loop("near", "far")
    with loop.sampler:
        sequences = [loop.sequence(entropy_source=name) for name in ("near", "far", "near")]
        loop.step(*sequences)
        assert [source.requests for source in loop.sources] == [[128], [64]]
    tokens = {line["sequence"]: line["source"] for line in records_in(loop.folder) if "u" in line}
    assert [tokens[each.name] for each in sequences] == ["near", "far", "near"]
    loop.check(sequences)


def test_sequences_have_options_of_their_own(loop: Any) -> None:
    with loop.sampler:
        greedy = loop.sequence(top_k=1, request_key="greedy", trial=3)
        long = loop.sequence(qr_sample_count=1000, qr_fixed_temperature=1.5)
        logits = loop.logits(2)
        tokens = loop.sampler.step(logits, [greedy, long])
        assert tokens[0] == logits[0].argmax()
    of = {line["sequence"]: line for line in records_in(loop.folder) if line["kind"] == "token"}
    assert (of[greedy.name]["request_key"], of[greedy.name]["trial"]) == ("greedy", "3")
    assert (of[long.name]["temperature"], of[long.name]["block_bytes"]) == (1.5, 1000)
    assert of[greedy.name]["block_bytes"] == 64


def test_ordinary_fields_are_followed_where_a_request_says_so(loop: Any) -> None:
    fields = EngineFields(temperature=1.25, top_p=1.0, top_k=0, min_p=0.0)
    with loop.sampler:
        sequence = loop.sequence(fields=fields, follow_request=True, logits_fields={"bias": 2})
        loop.step(sequence)
    (token,) = [line for line in records_in(loop.folder) if line["kind"] == "token"]
    assert token["temperature"] == 1.25
    (begun,) = loop.lines("sequence")
    assert (begun["prompt_tokens"], begun["fields"]) == (3, {"bias": 2})


def test_a_step_settles_the_tokens_before_it_and_no_others(loop: Any) -> None:
    with loop.sampler as sampler:
        one, other = loop.sequence(max_tokens=9), loop.sequence(max_tokens=9)
        loop.step(one, other)
        loop.step(one)
        assert (one.unsettled, other.unsettled) == (1, 1)
        sampler.emitted(other)
        assert (one.unsettled, other.unsettled) == (1, 0)
    loop.check([one, other])


def test_two_steps_in_flight_settle_a_step_later(loop: Any) -> None:
    with loop.sampler as sampler:
        sequence = loop.sequence(end_tokens=[], steps_in_flight=2)
        unsettled = []
        for _ in range(4):
            loop.step(sequence)
            unsettled.append(sequence.unsettled)
        assert unsettled == [1, 2, 2, 2]
        sampler.emitted(sequence, 3)
        assert sequence.unsettled == 1
        sampler.dropped(sequence, 1, "ahead")
    assert len(sequence.tokens) == 3
    (discard,) = loop.lines("discard")
    assert discard["reason"] == "ahead"
    loop.check([sequence])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_dropped_tokens_are_discards_and_the_sequence_goes_on(loop: Any, count: int) -> None:
    with loop.sampler as sampler:
        sequence = loop.sequence(end_tokens=[], max_tokens=4, steps_in_flight=5)
        loop.finish(sequence)
        tokens = list(sequence.tokens)
        sampler.dropped(sequence, count, "taken_back")
        assert not sequence.ended
        assert sequence.tokens == tokens[:-count]
        loop.finish(sequence)
        assert len(sequence.tokens) == 4
    assert [line["reason"] for line in loop.lines("discard")] == ["taken_back"] * count
    loop.check([sequence])


def test_an_end_is_recorded_when_the_loop_goes_on(loop: Any) -> None:
    with loop.sampler as sampler:
        short, long = loop.sequence(max_tokens=1), loop.sequence(end_tokens=[], max_tokens=3)
        loop.step(short, long)
        assert (short.ended, short.closed) == (True, False)
        loop.step(long)
        assert short.closed
        sampler.session.write()
        assert [line["sequence"] for line in loop.lines("end")] == [short.name]
    loop.check([short, long])


def test_an_end_in_one_thread_is_not_settled_by_another(loop: Any) -> None:
    with loop.sampler as sampler:
        short, long = loop.sequence(max_tokens=1), loop.sequence(end_tokens=[])
        loop.step(short)
        thread = threading.Thread(target=lambda: loop.step(long))
        thread.start()
        thread.join()
        assert not short.closed
        sampler.dropped(short, 1)
        assert not short.ended
        loop.step(short)
    loop.check([short, long])


def test_closed_sequences_say_how_they_ended(loop: Any) -> None:
    with loop.sampler as sampler:
        complete, given_up, untouched = (loop.sequence(end_tokens=[]) for _ in range(3))
        loop.step(complete, given_up)
        sampler.close(complete, reason="stop")
        sampler.close(given_up)
        for sequence in (complete, given_up):
            assert (sequence.ended, sequence.finish_reason) == (True, "closed")
        assert loop.step(complete, untouched)[0] == 0
        sampler.close(complete)
    ends = {line["sequence"]: line["reason"] for line in loop.lines("end")}
    assert ends == {complete.name: "stop", given_up.name: "departed", untouched.name: "closed"}
    emitted = {line["sequence"]: line["emitted"] for line in records_in(loop.folder) if "u" in line}
    assert emitted == {complete.name: True, given_up.name: None, untouched.name: True}


@pytest.mark.parametrize("error", [ReaderError("full"), KeyboardInterrupt()])
def test_the_ledger_is_complete_when_the_loop_raises(
    loop: Any, text: Callable[..., Any], error: BaseException
) -> None:
    ended, going_on = loop.sequence(max_tokens=1), loop.sequence(end_tokens=[])

    def generate() -> None:
        with loop.sampler:
            loop.step(ended, going_on)
            loop.step(going_on)
            raise error

    with pytest.raises(type(error)):
        generate()
    # Whether the last token has reached anybody is for nobody here to know.
    going_on.tokens.pop()
    loop.check([ended, text(going_on, settled=False)])
    last = [line for line in records_in(loop.folder) if line["kind"] == "token"][-1]
    assert (last["position"], last["emitted"]) == (1, None)


def test_without_an_error_everything_has_arrived(loop: Any) -> None:
    with loop.sampler:
        sequences = [loop.sequence(end_tokens=[]) for _ in range(3)]
        loop.step(*sequences)
    loop.check(sequences)


def test_threads_step_sequences_of_their_own(loop: Any) -> None:
    texts: list[Any] = []

    def work(number: int) -> None:
        for text in range(4):
            rows = [
                loop.sequence(max_tokens=12, request_key=f"{number}.{text}.{n}") for n in (0, 1)
            ]
            texts.extend(rows)
            while not all(row.ended for row in rows):
                logits = np.random.default_rng(number).normal(size=(2, 16)).astype(np.float32)
                loop.sampler.step(logits, rows)
            for row in rows:
                loop.sampler.emitted(row)

    with loop.sampler:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(texts) == 16
    loop.check(texts)


def test_a_bypassed_sequence_costs_nothing_and_its_caller_chooses(loop: Any) -> None:
    with loop.sampler as sampler:
        mine, ours = loop.sequence(bypass=1, request_key="mine"), loop.sequence(end_tokens=[])
        assert (mine.left_to_caller, mine.name, mine.outcome) == (True, "", None)
        tokens = loop.step(mine, ours)
        assert tokens[0] == LEFT_TO_CALLER
        assert sampler.decide(loop.logits(1), [mine]) == [None]
        for token in (4, END):
            assert not mine.ended
            sampler.chosen(mine, token)
        assert (mine.tokens, mine.finish_reason) == ([4, END], "stop")
        with pytest.raises(ValueError, match="qr_bypass=1"):
            sampler.chosen(ours, 3)
    assert loop.source.drawn == 64
    (bypass,) = loop.lines("bypass")
    assert bypass["request_key"] == "mine"
    loop.check([ours])


def test_outcomes_tell_how_a_token_was_chosen(loop: Any) -> None:
    with loop.sampler as sampler:
        sequence = loop.sequence(end_tokens=[])
        (outcome,) = sampler.decide(loop.logits(1), [sequence])
        assert outcome is sequence.outcome
        assert outcome.token_id == sequence.tokens[-1]
        # What it refers to is there as long as somebody holds it.
        assert 0 < outcome.step.u[outcome.row] < 1


def test_genesis_says_what_took_part(tmp_path: Path, loop: Any) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights.bin").write_bytes(b"weights")
    ledger = tmp_path / "ledger"
    settings = loop.settings.model_copy(update={"ledger_dir": ledger})
    sampler = LocalSampler(
        str(model),
        settings,
        engine="toy 3.1",
        model_files=model,
        sources=loop.sources,
        distributions=["pytest"],
        host={"device": "cpu"},
    )
    with sampler:
        sequence = sampler.sequence(max_tokens=2)
        while not sequence.ended:
            sampler.step(loop.logits(1), [sequence])
        # Files are hashed beside the loop, and nobody waits for that but this test.
        for thread in threading.enumerate():
            if thread.name == "qr-sampler-model":
                thread.join(30)
    records = [line for file in ledger.glob("*.jsonl") for line in _json_lines(file)]
    genesis = records[0]
    assert (genesis["engine"], genesis["model"]) == ("toy 3.1", "model")
    assert genesis["host"] == {"device": "cpu"}
    present = {"qr-sampler-core", "qr-sampler-local", "qr-entropy-sources", "numpy", "pytest"}
    assert present <= genesis["versions"].keys()
    (digests,) = [line for line in records if line["kind"] == "model"]
    assert list(digests["files"]) == ["weights.bin"]
    loop.sampler.close()


def test_sources_that_the_settings_name_are_closed_in_the_end(
    tmp_path: Path, loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    system = ENTROPY_SOURCES.load("system")
    monkeypatch.setattr(system, "close", lambda self: closed.append("system"))
    monkeypatch.setattr(type(loop.source), "close", lambda self: closed.append("own"))
    settings = Settings.load(entropy_source_type="system", fallback_mode="numbers")
    with LocalSampler("made up", settings, sources=loop.sources) as sampler:
        sampler.step(loop.logits(1), [sampler.sequence()])
        assert closed == []
    assert closed == ["system"]
    loop.sampler.close()


def test_without_settings_the_first_source_of_the_caller_is_used(loop: Any) -> None:
    loop.sampler.close()
    with LocalSampler("made up", sources={"numbers": loop.source}) as sampler:
        sampler.step(loop.logits(1), [sampler.sequence(sample_count=10_240)])
        assert next(iter(sampler.session.sources)) == "numbers"
    assert loop.source.requests[-1] == 10_240


_ABANDONED = """
import sys
import numpy as np
from qr_sampler import Settings
from qr_sampler_local import LocalSampler

settings = Settings.load(ledger_dir=sys.argv[1])
sampler = LocalSampler("made up", settings)
sequence = sampler.sequence(request_key="abandoned")
for _ in range(3):
    sampler.step(np.zeros((1, 16), np.float32), [sequence])
"""


def test_a_process_that_ends_closes_what_is_open(tmp_path: Path) -> None:
    script = textwrap.dedent(_ABANDONED)
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=120)
    lines = [line for file in tmp_path.glob("*.jsonl") for line in _json_lines(file)]
    kinds = Counter(line["kind"] for line in lines)
    assert (kinds["token"], kinds["end"], kinds["close"]) == (3, 1, 1)
    assert lines[-1]["kind"] == "close"


def _json_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_a_sampler_that_nobody_refers_to_is_closed_in_the_end(
    make_loop: Callable[..., Any], text: Callable[..., Any]
) -> None:
    loop = make_loop()
    sequence = loop.sequence(end_tokens=[])
    loop.step(sequence)
    emitted, sampler = text(sequence, settled=False), ref(loop.sampler)
    del sequence, loop.sampler
    gc.collect()
    lifetimes._close_all()
    loop.check([emitted])
    gc.collect()
    assert sampler() is None
    loop.sampler = LocalSampler("other", sources=loop.sources)


def test_a_forked_process_leaves_the_texts_of_its_parent_alone(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = loop.sequence(end_tokens=[])
    loop.step(sequence)
    monkeypatch.setattr(loop.sampler, "process", os.getpid() + 1)
    lifetimes._close_all()
    assert not loop.sampler.closed
    monkeypatch.undo()
    lifetimes._close_all()
    assert loop.sampler.closed
    assert [line["reason"] for line in loop.lines("end")] == ["closed"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_texts_of_its_own(loop: Any) -> None:
    with loop.sampler as sampler:
        sequence = loop.sequence(end_tokens=[])
        loop.step(sequence)
        with _held_by_another_thread(sampler.lock):
            child = os.fork()
            if not child:
                os._exit(_of_forked(loop, sequence))
        assert os.waitstatus_to_exitcode(_waited_for(child)) == 0
        loop.step(sequence)
    records = [line for line in loop.lines() if line.get("sequence") == sequence.name]
    assert Counter(line["kind"] for line in records) == {"sequence": 1, "token": 2, "end": 1}


def _of_forked(loop: Any, sequence: Any) -> int:
    """Samples in a forked process; returns its exit code."""
    try:
        with loop.sampler:
            own = loop.sequence(end_tokens=[])
            loop.step(own, sequence)
            return 0 if (len(own.tokens), len(sequence.tokens)) == (1, 1) else 2
    except BaseException:
        return 3


@contextmanager
def _held_by_another_thread(lock: Any) -> Iterator[None]:
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    yield
    over.set()
    thread.join()


def _waited_for(child: int) -> int:
    """Returns the status of *child*, which is killed if it does not end."""
    for _ in range(600):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]
