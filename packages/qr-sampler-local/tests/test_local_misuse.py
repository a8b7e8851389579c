# SPDX-License-Identifier: Apache-2.0
"""What does not fit is refused in words that help, before anything is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from qr_sampler import ConfigError, Settings
from qr_sampler_local import LocalSampler, LocalSequence
from qr_sampler_local.loop.sources import own_sources


@pytest.mark.parametrize(
    ("logits", "error", "words"),
    [
        (np.zeros(16, np.float32), ValueError, r"shape \(16,\).*pass logits\[None\]"),
        (np.zeros((1, 2, 16), np.float32), ValueError, r"shape \(1, 2, 16\).*logits\[:, -1\]"),
        (np.zeros((3, 16), np.float32), ValueError, r"shape \(3, 16\) for 2 sequences"),
        (np.zeros((2, 9), np.float32), ValueError, r"have no token 9, which ends"),
        (np.zeros((2, 16), np.int64), TypeError, r"of type int64: expected floating-point"),
        (np.zeros((2, 16), np.complex64), TypeError, r"of type complex64"),
        ([["a"] * 16] * 2, TypeError, r"of type <U1"),
        (np.ma.masked_array(np.zeros((2, 16), np.float32)), TypeError, r"filled\(-numpy.inf\)"),
    ],
)
def test_logits_that_do_not_fit(loop: Any, logits: Any, error: Any, words: str) -> None:
    with loop.sampler as sampler:
        sequences = [loop.sequence(), loop.sequence()]
        with pytest.raises(error, match=words):
            sampler.step(logits, sequences)
        assert loop.source.requests == []
        # Nothing has happened to them.
        loop.finish(*sequences)
    loop.check(sequences)


def test_logits_of_another_vocabulary(loop: Any) -> None:
    sampler = LocalSampler("made up", loop.settings, sources=loop.sources, vocab_size=20)
    with sampler, pytest.raises(ValueError, match="for a vocabulary of 20 tokens"):
        sampler.step(loop.logits(1), [sampler.sequence()])
    loop.sampler.close()


def test_a_sequence_of_another_sampler(loop: Any) -> None:
    with LocalSampler("other", loop.settings, sources=loop.sources) as other, loop.sampler as ours:
        foreign = other.sequence()
        calls: list[Callable[[], object]] = [
            lambda: ours.step(loop.logits(1), [foreign]),
            lambda: ours.emitted(foreign),
            lambda: ours.dropped(foreign, 0),
            lambda: ours.chosen(foreign, 3),
            lambda: ours.close(foreign),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="is of another sampler"):
                call()
        with pytest.raises(ValueError, match="is of another sampler"):
            ours.step(loop.logits(1), ["text"])  # type: ignore[list-item]
    assert loop.source.requests == []


def test_a_reason_that_no_record_knows(loop: Any) -> None:
    with loop.sampler as sampler, pytest.raises(ValueError, match="reason='bored'"):
        sampler.close(loop.sequence(), reason="bored")


def test_a_sequence_in_two_rows(loop: Any) -> None:
    with loop.sampler:
        sequence = loop.sequence()
        with pytest.raises(ValueError, match="in two rows"):
            loop.step(sequence, sequence)
    assert loop.source.requests == []


def test_a_sampler_that_is_closed(loop: Any) -> None:
    sequence = loop.sequence()
    loop.sampler.close()
    loop.sampler.close()
    with pytest.raises(RuntimeError, match="closed; make another"):
        loop.step(sequence)
    with pytest.raises(RuntimeError, match="closed; make another"):
        loop.sequence()
    # A finally clause of a loop may still do these.
    loop.sampler.emitted(sequence)
    loop.sampler.close(sequence)
    assert (sequence.ended, sequence.closed) == (True, True)


def test_tokens_that_were_emitted_cannot_be_dropped(loop: Any) -> None:
    with loop.sampler as sampler:
        sequence = loop.sequence(end_tokens=[])
        loop.step(sequence)
        loop.step(sequence)
        for count in (2, 3, -1):
            with pytest.raises(ValueError, match=f"count={count}: 1 of the 2 tokens"):
                sampler.dropped(sequence, count)
        sampler.dropped(sequence, 0)
        sampler.close(sequence)
        with pytest.raises(ValueError, match="2 of the 2 tokens"):
            sampler.dropped(sequence, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"temperature": 0.5}, "qr_temperature=0.5: unknown key"),
        ({"top_p": 1.5}, "qr_top_p=1.5"),
        ({"entropy_source": "elsewhere"}, "'elsewhere': not a source"),
        ({"fallback_mode": "error"}, "set by the operator"),
        ({"follow_request": 1}, "qr_follow_request: the ordinary fields"),
        ({"max_tokens": 0}, "max_tokens=0: expected a whole number from 1 on"),
        ({"max_tokens": 1.5}, "max_tokens=1.5"),
        ({"steps_in_flight": 0}, "steps_in_flight=0"),
        ({"end_tokens": [-1]}, r"end_tokens=\[-1\]: expected token ids"),
        ({"end_tokens": 5}, "end_tokens=5"),
        ({"end_tokens": "5"}, "end_tokens='5'"),
        ({"end_tokens": [[5]]}, r"end_tokens=\[\[5\]\]"),
        ({"end_tokens": None}, "end_tokens=None"),
        ({"end_tokens": [0.5]}, r"end_tokens=\[0.5\]"),
        ({"max_tokens": True}, "max_tokens=True"),
        ({"top_p": 0.5, "qr_top_p": 0.6}, "qr_top_p: given with the prefix and without it"),
        ({"logits_fields": {"bias": float("nan")}}, "logits_fields: Out of range.*finite numbers"),
        ({"logits_fields": {"bias": np.float32(2)}}, "logits_fields: .*float32"),
    ],
)
def test_arguments_of_a_sequence(loop: Any, arguments: Mapping[str, Any], words: str) -> None:
    with loop.sampler, pytest.raises(ConfigError, match=words):
        loop.sequence(**arguments)
    assert not loop.lines("sequence", "bypass", "draw", "discard")


def test_token_ids_come_in_many_forms(loop: Any) -> None:
    with loop.sampler as sampler:
        forms = [np.array([3, 4, 5]), (3, 4, 5), range(3, 6), [np.int32(3), 4, 5]]
        for prompt in forms:
            sampler.sequence(prompt, end_tokens=iter([7]))
            sampler.step(loop.logits(1), [sampler.sequence(prompt)])
    assert {line["prompt_tokens"] for line in loop.lines("sequence")} == {3}


def test_numbers_of_numpy_are_recorded(loop: Any) -> None:
    with loop.sampler:
        sequence = loop.sequence(max_tokens=np.int64(2), steps_in_flight=np.int8(1))
        loop.finish(sequence)
    (begun,) = loop.lines("sequence")
    assert begun["stop"]["max_tokens"] == 2
    loop.check([sequence])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"vocab_size": 0}, "vocab_size=0: expected a whole number"),
        ({"host": {"device": object()}}, "host: .*pass what JSON can hold"),
        ({"sources": ["system"]}, "'system' is no EntropySource; name sources"),
        ({"sources": {"system": None}}, "None is no EntropySource"),
    ],
)
def test_arguments_of_a_sampler(arguments: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LocalSampler("made up", **arguments)


def test_a_source_outside_a_list(loop: Any) -> None:
    with pytest.raises(ConfigError, match="'numbers' alone; pass a list"):
        LocalSampler("made up", sources=loop.source)


def test_names_of_sources(loop: Any) -> None:
    class Renamed(type(loop.source)):  # type: ignore[misc]
        pass

    loop.sampler.close()
    with pytest.raises(ConfigError, match="calls itself 'numbers'"):
        LocalSampler("made up", sources={"other": loop.source})
    with pytest.raises(ConfigError, match="two are called 'numbers'"):
        own_sources([loop.source, loop.source])
    for name in ("error", "end_request", "a,b", " a", ""):
        with pytest.raises(ConfigError, match="cannot be the name of a source"):
            own_sources([Renamed(name)])


def test_a_source_that_nobody_has(loop: Any) -> None:
    loop.sampler.close()
    settings = Settings.load(entropy_source_type="elsewhere")
    with pytest.raises(ConfigError, match="unknown entropy source 'elsewhere'"):
        LocalSampler("made up", settings, sources=loop.sources)


def test_a_sequence_says_what_it_is(loop: Any) -> None:
    with loop.sampler:
        sequence: LocalSequence = loop.sequence(request_key="text", max_tokens=1)
        assert repr(sequence) == "LocalSequence('text', 0 tokens, open)"
        loop.step(sequence)
        assert repr(sequence).startswith("LocalSequence('text', 1 tokens, ")
