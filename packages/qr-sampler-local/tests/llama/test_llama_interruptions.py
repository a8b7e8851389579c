# SPDX-License-Identifier: Apache-2.0
"""What ends a text of a ``Llama`` from outside leaves records that say what was handed out.

Each test runs with the stand-in of ``conftest.py``, and with llama-cpp-python where it is
installed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from qr_sampler import ConfigError, EntropyUnavailableError
from qr_sampler_local.llama_cpp import LlamaCppSampler
from qr_sampler_local.llama_cpp.turn import ForeignTokenError

MakeLlama = Callable[..., Any]
PROMPT = [5, 6, 7]


def sampler_of(llama: Any, watched: Any, **settings: Any) -> LlamaCppSampler:
    return LlamaCppSampler(llama, watched.settings(**settings), sources=watched.sources)


def test_a_stream_that_is_given_up_has_records_of_what_was_taken(
    make_llama: MakeLlama, watched: Any
) -> None:
    llama = make_llama()
    with sampler_of(llama, watched):
        taken = []
        for token in llama.generate(PROMPT):
            taken.append(token)
            if len(taken) == 3:
                break
        llama.create_completion(PROMPT, max_tokens=2)
    assert watched.tokens()[:3] == taken
    assert watched.ends() == [(3, "departed"), (2, "stop")]
    assert not watched.lines("discard")


def test_another_completion_ends_the_one_before(make_llama: MakeLlama, watched: Any) -> None:
    """Both would write into the same state, so that the first cannot be resumed."""
    llama = make_llama()
    with sampler_of(llama, watched):
        first = llama.generate(PROMPT)
        next(first)
        llama.create_completion(PROMPT, max_tokens=2)
        with pytest.raises(ConfigError, match="another completion of this Llama has begun"):
            next(first)
    assert watched.ends() == [(1, "departed"), (2, "stop")]


def test_a_token_that_a_stopping_criterion_throws_away_is_a_discard(
    make_llama: MakeLlama, watched: Any
) -> None:
    llama = make_llama()
    calls: list[int] = []

    def third(ids: Any, logits: Any) -> bool:
        calls.append(len(ids))
        return len(calls) == 3

    with sampler_of(llama, watched):
        tokens = list(llama.generate(PROMPT, stopping_criteria=third))
    assert watched.tokens() == tokens
    assert [(each["position"], each["reason"]) for each in watched.lines("discard")] == [
        (2, "after_stop")
    ]
    assert watched.ends() == [(2, "departed")]
    assert watched.source.bytes_drawn == 16 * 3


@pytest.mark.parametrize("error", [LookupError("no such rule"), KeyboardInterrupt()])
def test_what_is_raised_while_a_token_is_chosen_ends_the_completion(
    make_llama: MakeLlama, watched: Any, error: BaseException
) -> None:
    """ctypes would print it, and llama.cpp would choose by itself."""
    llama = make_llama()

    def fails_at_third(ids: Any, scores: Any) -> Any:
        if len(ids) == len(PROMPT) + 2:
            raise error
        return scores

    with sampler_of(llama, watched) as sampler:
        request = sampler.request(fails_at_third)
        with pytest.raises(type(error)):
            llama.create_completion(PROMPT, max_tokens=9, logits_processor=request)
    assert watched.ends() == [(2, "departed")]


def test_an_error_is_raised_where_a_stopping_criterion_ends_the_text_with_it(
    make_llama: MakeLlama, watched: Any
) -> None:
    """The token of llama.cpp's own that the criterion throws away is the one that failed."""
    llama = make_llama()
    watched.source.fail_after = 2
    with sampler_of(llama, watched), pytest.raises(EntropyUnavailableError):
        llama.create_completion(
            PROMPT, max_tokens=9, stopping_criteria=lambda ids, logits: len(ids) == len(PROMPT) + 2
        )
    assert watched.ends() == [(2, "departed")]


def test_a_token_that_is_decided_when_an_interrupt_arrives_is_a_discard(
    make_llama: MakeLlama, watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama = make_llama()
    with sampler_of(llama, watched) as sampler:
        step = sampler.local.step

        def interrupted(logits: Any, sequences: Any) -> list[int]:
            token_ids = step(logits, sequences)
            if len(sequences[0].tokens) == 3:
                raise KeyboardInterrupt
            return token_ids

        monkeypatch.setattr(sampler.local, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            llama.create_completion(PROMPT, max_tokens=9)
    assert watched.ends() == [(2, "departed")]
    assert [(each["position"], each["reason"]) for each in watched.lines("discard")] == [
        (2, "not_emitted")
    ]


def test_a_model_that_is_freed_in_the_block_loses_no_record(
    make_llama: MakeLlama, watched: Any
) -> None:
    llama = make_llama()
    with sampler_of(llama, watched):
        stream = llama.create_completion(PROMPT, max_tokens=9, stream=True)
        next(stream)
        llama.close()
    assert watched.ends() == [(len(watched.tokens()), "departed")]
    assert watched.tokens()


@pytest.mark.parametrize("end", [0, 9])
def test_a_stream_that_is_first_read_after_the_block_ends_at_once(
    stand_in: ModuleType,
    watched: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    end: int,
) -> None:
    monkeypatch.setattr(stand_in, "llama_vocab_is_eog", lambda vocabulary, token: token == end)
    llama = stand_in.Llama("tiny.gguf")
    with sampler_of(llama, watched):
        stream = llama.create_completion(PROMPT, max_tokens=9, stream=True)
    with caplog.at_level(logging.ERROR, "qr_sampler.local.llama_cpp"):
        chunks = list(stream)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == ""
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert "outside of its block" in caplog.text
    assert not watched.source.draws


def test_what_others_have_put_in_place_of_methods_stays(stand_in: ModuleType, watched: Any) -> None:
    """Such as what instruments a library: before the block it is refused, in it it is kept."""
    llama = stand_in.Llama("tiny.gguf")
    llama.create_completion = before = partial(llama.create_completion, max_tokens=2)
    with pytest.raises(ConfigError, match=r"place of create_completion\(\)"):
        sampler_of(llama, watched)
    assert llama.create_completion is before
    del llama.create_completion
    with sampler_of(llama, watched):
        llama.create_completion = within = partial(llama.create_completion, max_tokens=2)
    assert vars(llama)["create_completion"] is within
    assert "generate" not in vars(llama)


def test_a_token_cannot_be_told(make_llama: MakeLlama, watched: Any) -> None:
    llama = make_llama()
    with sampler_of(llama, watched):
        stream = llama.generate(PROMPT)
        next(stream)
        with pytest.raises(ConfigError, match="every token of a sequence has to be chosen"):
            stream.send([9])
    assert watched.ends() == [(1, "departed")]


def test_another_token_than_the_chosen_one_is_never_handed_out(
    stand_in: ModuleType, watched: Any
) -> None:
    """Where a version of llama.cpp chooses otherwise, or a signal comes between."""
    llama = stand_in.Llama("tiny.gguf")
    with sampler_of(llama, watched):
        stream = llama.generate(PROMPT)
        next(stream)
        llama.foreign_token = stand_in.END_TOKEN
        with pytest.raises(ForeignTokenError, match="instead of"):
            next(stream)
    assert watched.lines("discard")[-1]["reason"] == "not_emitted"
