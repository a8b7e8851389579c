# SPDX-License-Identifier: Apache-2.0
"""Completions of a ``Llama`` have the tokens that entropy has chosen, and their records.

Each test runs with the stand-in of ``conftest.py``, and with llama-cpp-python where it is
installed.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qr_sampler import ConfigError, EntropyUnavailableError, Settings
from qr_sampler.testing.hosts.recorded_logits import (
    PlayedBytes,
    Recording,
    check_recorded,
    recording_of,
)
from qr_sampler_local.llama_cpp import LlamaCppSampler

MakeLlama = Callable[..., Any]
PROMPT = [5, 6, 7]


def sampler_of(llama: Any, watched: Any, **settings: Any) -> LlamaCppSampler:
    return LlamaCppSampler(llama, watched.settings(**settings), sources=watched.sources)


def text_of(llama: Any, tokens: list[int]) -> str:
    text: bytes = llama.detokenize(tokens, prev_tokens=PROMPT)
    return text.decode("utf-8", errors="ignore")


def test_a_completion_is_what_its_records_say(make_llama: MakeLlama, watched: Any) -> None:
    llama = make_llama()
    with sampler_of(llama, watched) as sampler:
        request = sampler.request(request_key="mine", fixed_temperature=0.5)
        answer = llama.create_completion(PROMPT, max_tokens=7, logits_processor=request)
        llama.create_completion(PROMPT, max_tokens=4)
    tokens = watched.tokens("mine")
    # It goes on where the last token begins a character.
    assert answer["usage"]["completion_tokens"] == len(tokens) >= 7
    assert answer["choices"][0]["text"] == text_of(llama, tokens)
    count = len(watched.tokens())
    assert watched.ends() == [(len(tokens), "stop"), (count - len(tokens), "stop")]
    assert {line["temperature"] for line in watched.lines("token")} == {0.5, 0.7}
    assert watched.source.bytes_drawn == 16 * count
    assert not watched.lines("discard")
    (genesis,) = watched.lines("genesis")
    assert genesis["engine"].startswith("llama-cpp-python 0.3.36")
    assert genesis["model"] == "tiny.gguf"


def test_a_stream_is_what_its_records_say(make_llama: MakeLlama, watched: Any) -> None:
    llama = make_llama()
    with sampler_of(llama, watched):
        chunks = list(llama.create_completion(PROMPT, max_tokens=9, stream=True))
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    assert text == text_of(llama, watched.tokens())
    assert watched.ends() == [(len(watched.tokens()), "stop")]


def test_a_stop_string_ends_a_whole_text(make_llama: MakeLlama, watched: Any) -> None:
    """llama-cpp-python takes the token that completes it and cuts the text before it."""
    llama = make_llama()
    with sampler_of(llama, watched) as sampler:
        first = llama.create_completion(PROMPT, max_tokens=12)["choices"][0]["text"]
        stop = first[3:5]
        watched.source.start_again()
        request = sampler.request(request_key="stopped")
        answer = llama.create_completion(PROMPT, max_tokens=12, stop=stop, logits_processor=request)
    tokens = watched.tokens("stopped")
    assert answer["choices"][0] == {
        **answer["choices"][0],
        "text": first[: first.index(stop)],
        "finish_reason": "stop",
    }
    assert text_of(llama, tokens).startswith(first[: first.index(stop)] + stop)
    assert answer["usage"]["completion_tokens"] == len(tokens) < 12
    assert watched.ends()[1] == (len(tokens), "stop")


def test_the_end_token_ends_a_text(make_llama: MakeLlama, watched: Any) -> None:
    llama = make_llama()

    def only_the_end(ids: Any, scores: Any) -> Any:
        scores = scores.copy()
        if len(ids) == len(PROMPT) + 2:
            scores[:] = -np.inf
            scores[llama.token_eos()] = 0.0
        return scores

    with sampler_of(llama, watched) as sampler:
        request = sampler.request(only_the_end)
        answer = llama.create_completion(PROMPT, max_tokens=9, logits_processor=request)
        tokens = list(llama.generate(PROMPT, logits_processor=sampler.request(only_the_end)))
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 2
    assert len(tokens) == 3
    assert tokens[-1] == llama.token_eos()
    assert watched.ends() == [(3, "stop"), (3, "stop")]


def test_the_context_ends_a_completion(make_llama: MakeLlama, watched: Any) -> None:
    llama = make_llama()
    with sampler_of(llama, watched):
        answer = llama.create_completion(PROMPT, max_tokens=None)
    room = llama.n_ctx() - len(PROMPT)
    assert answer["usage"]["completion_tokens"] == len(watched.tokens()) <= room
    assert watched.ends()[0][1] == "stop"


def test_a_bias_acts_before_the_token_is_chosen(make_llama: MakeLlama, watched: Any) -> None:
    """With a plain list llama-cpp-python loses every processor as soon as there is a bias."""
    llama = make_llama()
    with sampler_of(llama, watched) as sampler:
        request = sampler.request(request_key="with options")
        llama.create_completion(
            PROMPT, max_tokens=3, logit_bias={33: 500.0}, logits_processor=request
        )
        llama.create_completion(PROMPT, max_tokens=3, logit_bias={34: 500.0})
        llama.create_completion(PROMPT, max_tokens=3, logits_processor=request)
    tokens = watched.tokens()
    assert watched.tokens("with options")[:3] == [33] * 3
    assert tokens[3:6] == [34] * 3
    assert tokens[6:] != [33] * 3
    fields = [line["fields"] for line in watched.lines("sequence")]
    assert fields == [{"logits_processors": 1}, {"logits_processors": 1}, {}]


def test_a_source_that_fails_ends_the_completion(make_llama: MakeLlama, watched: Any) -> None:
    llama = make_llama()
    watched.source.fail_after = 2
    with sampler_of(llama, watched), pytest.raises(EntropyUnavailableError):
        llama.create_completion(PROMPT, max_tokens=9)
    assert watched.ends() == [(2, "departed")]
    assert len(watched.tokens()) == 2


def test_without_entropy_a_text_ends_with_its_end_token(
    make_llama: MakeLlama, watched: Any
) -> None:
    llama = make_llama()
    watched.source.fail_after = 2
    with sampler_of(llama, watched, fallback_mode="end_request"):
        answer = llama.create_completion(PROMPT, max_tokens=9)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert watched.tokens()[-1] == llama.token_eos()
    assert watched.ends() == [(3, "forced")]


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ({"temperature": 0.5}, "temperature=0.5.*qr_fixed_temperature"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"temperature": 1.0}, "temperature=1.0"),
        ({"top_k": 7}, "top_k=7.*qr_top_k"),
        ({"top_p": 0.5}, "top_p=0.5.*qr_top_p"),
        ({"min_p": 0.2}, "min_p=0.2.*qr_min_p"),
        ({"typical_p": 0.5}, "typical_p=0.5"),
        ({"mirostat_mode": 2}, "mirostat_mode=2"),
        ({"repeat_penalty": 1.1}, "repeat_penalty=1.1.*processor of your own"),
        ({"frequency_penalty": 0.5}, "frequency_penalty=0.5"),
        ({"presence_penalty": 0.5}, "presence_penalty=0.5"),
        ({"grammar": object()}, "grammar"),
        ({"max_tokens": 3, "logits_processor": {"top_p": 3.0}}, "qr_top_p=3.0"),
    ],
)
def test_options_that_would_act_on_nothing_are_refused(
    make_llama: MakeLlama, watched: Any, own: dict[str, Any], named: str
) -> None:
    llama = make_llama()
    with sampler_of(llama, watched) as sampler:
        if "logits_processor" in own:
            own = {**own, "logits_processor": sampler.request(**own["logits_processor"])}
        with pytest.raises(ConfigError, match=named):
            llama.create_completion(PROMPT, **own)
    assert not watched.source.draws
    assert not watched.lines("sequence")


def test_temperature_and_filters_are_followed_on_request(
    make_llama: MakeLlama, watched: Any
) -> None:
    llama = make_llama()
    with sampler_of(llama, watched, follow_request=True):
        llama.create_completion(PROMPT, max_tokens=3, temperature=0.25, top_k=2, top_p=1.0)
    records = watched.lines("token")
    assert {record["temperature"] for record in records} == {0.25}
    assert all(record["rank"] < 2 for record in records)


@pytest.mark.parametrize("options", [{"bypass": 1}, {"follow_request": 1}])
def test_what_is_left_to_llama_cpp_has_no_records(
    make_llama: MakeLlama, watched: Any, options: dict[str, int]
) -> None:
    llama = make_llama()
    seen: list[int] = []

    def watching(ids: Any, scores: Any) -> Any:
        seen.append(len(ids))
        return scores

    with sampler_of(llama, watched) as sampler:
        request = sampler.request(watching, **options)
        answer = llama.create_completion(
            PROMPT, max_tokens=3, temperature=0.0, repeat_penalty=1.1, logits_processor=request
        )
    assert answer["usage"]["completion_tokens"] == len(seen) == 3
    assert not watched.source.draws
    assert len(watched.lines("bypass")) == 1
    assert not watched.tokens()


def test_what_cannot_be_sampled_is_refused(make_llama: MakeLlama, watched: Any) -> None:
    with pytest.raises(ConfigError, match="logits_all=False"):
        sampler_of(make_llama(logits_all=True), watched)

    class Draft:
        def __call__(self, input_ids: Any, /, **named: Any) -> Any:
            return input_ids[:0]

    with pytest.raises(ConfigError, match="without a draft model"):
        sampler_of(make_llama(draft_model=Draft()), watched)
    llama = make_llama()
    with sampler_of(llama, watched), pytest.raises(ConfigError, match="end its block first"):
        sampler_of(llama, watched)


def test_the_end_of_the_block_gives_the_llama_back(
    make_llama: MakeLlama, watched: Any, caplog: pytest.LogCaptureFixture
) -> None:
    llama = make_llama()
    with sampler_of(llama, watched) as sampler:
        request = sampler.request(request_key="late")
        open_stream = llama.generate(PROMPT)
        next(open_stream)
    assert watched.ends() == [(1, "departed")]
    assert not {"generate", "create_completion"} & vars(llama).keys()
    drawn = watched.source.bytes_drawn
    assert llama.create_completion(PROMPT, max_tokens=3)["usage"]["completion_tokens"] >= 3
    with caplog.at_level(logging.ERROR, "qr_sampler.local.llama_cpp"):
        answer = llama.create_completion(
            PROMPT, max_tokens=3, temperature=0.0, logits_processor=request
        )
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 0
    assert "outside of its block" in caplog.text
    assert watched.source.bytes_drawn == drawn


CHAINS: tuple[dict[str, Any], ...] = (
    {},
    {"temp": 0.0},
    {"temp": -1.0},
    {"temp": 3.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    {"typical_p": 0.3, "top_k": 0},
    {"mirostat_mode": 1},
    {"mirostat_mode": 2},
    {"repeat_penalty": 1.5, "frequency_penalty": 2.0, "presence_penalty": 2.0, "temp": 0.0},
)


@pytest.mark.parametrize("chain", CHAINS)
def test_any_chain_keeps_the_forced_token(
    make_llama: MakeLlama, watched: Any, chain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter has it take the largest logit; the row is such that this is not needed."""
    monkeypatch.setattr("qr_sampler_local.llama_cpp.sampler.LAST_CHOICE", chain)
    llama = make_llama()
    with sampler_of(llama, watched) as sampler:
        turn = sampler.turn(PROMPT, {}, max_tokens=6)
        tokens = list(turn.tokens())
        turn.close()
    assert tokens == watched.tokens()
    assert len(set(tokens)) > 1


def test_the_stand_in_has_the_signatures_of_the_library(stand_in: ModuleType) -> None:
    """Written down here, because the library is not there to compare them with."""
    expected = (
        "self tokens top_k top_p min_p typical_p temp repeat_penalty reset frequency_penalty "
        "presence_penalty tfs_z mirostat_mode mirostat_tau mirostat_eta penalize_nl "
        "logits_processor stopping_criteria grammar"
    )
    assert list(inspect.signature(stand_in.Llama.generate).parameters) == expected.split()


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_they_are_those_of_the_installed_version(request: pytest.FixtureRequest) -> None:
    from llama_cpp import Llama

    stand_in = request.getfixturevalue("stand_in").Llama
    for method in ("generate", "create_completion"):
        ours, theirs = (
            inspect.signature(getattr(kind, method)).parameters for kind in (stand_in, Llama)
        )
        assert [(each.name, each.default, each.kind) for each in ours.values()] == [
            (each.name, each.default, each.kind) for each in theirs.values()
        ]


def test_recorded_logits_give_the_tokens_and_records_of_the_reference(
    make_llama: MakeLlama, tmp_path: Path
) -> None:
    """The logits are put into llama.cpp's own row, by a processor before ours."""
    llama = make_llama()

    def play(recording: Recording, settings: Settings, source: PlayedBytes) -> list[list[int]]:
        def text(row: int) -> list[int]:
            def recorded(ids: Any, scores: Any) -> Any:
                return recording.logits[len(ids) - len(PROMPT), row]

            processors = [recorded]
            turn = sampler.turn(
                PROMPT, recording.options[row], max_tokens=recording.steps, processors=processors
            )
            tokens = list(turn.tokens())
            turn.close()
            return tokens

        with LlamaCppSampler(llama, settings, sources=[source]) as sampler:
            return [text(row) for row in range(recording.rows)]

    check_recorded(play, tmp_path, recording_of(llama.n_vocab()))
