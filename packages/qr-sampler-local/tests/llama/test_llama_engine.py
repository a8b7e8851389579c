# SPDX-License-Identifier: Apache-2.0
"""llama.cpp behind the protocol of engines, with the stand-in and where it is installed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qr_sampler import ConfigError, EntropySource, Settings
from qr_sampler.testing import HostContract, HostDriver, HostRequest
from qr_sampler_local.engines import LocalEngine
from qr_sampler_local.engines.protocol import EmittedToken
from qr_sampler_local.llama_cpp.engine import LlamaCppEngine
from qr_sampler_local.llama_cpp.sampler import LlamaCppSampler

PROMPT = [5, 6, 7]
MESSAGES = [{"role": "user", "content": "What is light?"}]


@pytest.fixture
def make_engine(make_llama: Callable[..., Any], watched: Any) -> Iterator[Callable[..., Any]]:
    """Makes engines of the file that ``make_llama`` has."""
    made: list[LlamaCppEngine] = []
    model = make_llama().model_path

    def make(model: str = model, **arguments: Any) -> LlamaCppEngine:
        settings = watched.settings()
        made.append(
            LlamaCppEngine(model, settings=settings, arguments=arguments, sources=watched.sources)
        )
        return made[-1]

    yield make
    for each in made:
        each.close()
        each.close()


def test_each_prompt_gets_its_own_sequence(make_engine: Callable[..., Any], watched: Any) -> None:
    engine: LocalEngine = make_engine()
    handed: list[EmittedToken] = []
    first, second = engine.generate(
        [PROMPT, PROMPT],
        max_tokens=5,
        options=[{"qr_request_key": "a"}, {"qr_request_key": "b", "qr_top_k": 1}],
        on_token=handed.append,
    )
    assert (first.request_key, second.request_key) == ("a", "b")
    assert first.finish_reason == second.finish_reason == "length"
    assert [list(each.tokens) for each in (first, second)] == [
        [token.token_id for token in handed if token.prompt == prompt] for prompt in (0, 1)
    ]
    assert {token.rank for token in handed if token.prompt == 1} == {0}
    assert {token.source for token in handed} == {"witness"}
    engine.close()
    assert watched.tokens("a") == list(first.tokens)
    assert [line["u"] for line in watched.lines("token")] == [token.u for token in handed]
    assert watched.ends() == [(5, "stop"), (5, "stop")]


def test_an_end_token_and_a_full_context_end_a_text(
    make_engine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(n_ctx=16)
    (full,) = engine.generate([[5] * 14], max_tokens=9, options=[{}])
    assert (len(full.tokens), full.finish_reason) == (2, "length")
    turn = LlamaCppSampler.turn

    def only_the_end(*given: Any, **named: Any) -> Any:
        def processor(ids: Any, scores: Any) -> Any:
            row = np.full_like(scores, -np.inf)
            row[engine.llama.token_eos()] = 0.0
            return row

        return turn(*given, **named, processors=[processor])

    monkeypatch.setattr(LlamaCppSampler, "turn", only_the_end)
    (ended,) = engine.generate([PROMPT], max_tokens=9, options=[{}])
    assert (ended.tokens, ended.finish_reason) == ((engine.llama.token_eos(),), "stop")


@pytest.mark.parametrize(
    ("most", "reason", "end"), [(9, "interrupted", "departed"), (3, "length", "stop")]
)
def test_an_interrupt_ends_a_call_and_keeps_the_records_straight(
    make_engine: Callable[..., Any], watched: Any, most: int, reason: str, end: str
) -> None:
    """Also one that comes with the last token of a text, which is whole then."""
    engine = make_engine()
    handed: list[int] = []

    def interrupting(token: EmittedToken) -> None:
        handed.append(token.token_id)
        if len(handed) == 3:
            raise KeyboardInterrupt

    options = [{}, {"qr_request_key": "never"}]
    first, second = engine.generate(
        [PROMPT] * 2, max_tokens=most, options=options, on_token=interrupting
    )
    assert (list(first.tokens), first.finish_reason) == (handed, reason)
    assert (second.request_key, second.tokens, second.finish_reason) == ("never", (), "interrupted")
    (again,) = engine.generate([PROMPT], max_tokens=2, options=[{}])
    engine.close()
    assert watched.tokens() == [*handed, *again.tokens]
    assert watched.ends() == [(3, end), (2, "stop")]


def test_an_interrupt_before_a_token_was_handed_over_makes_it_a_discard(
    make_engine: Callable[..., Any], watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    handed: list[int] = []

    def interrupted(cls: type[EmittedToken], prompt: int, outcome: Any) -> EmittedToken:
        if len(handed) == 2:
            raise KeyboardInterrupt
        handed.append(outcome.token_id)
        return EmittedToken(prompt, outcome.position, outcome.token_id)

    monkeypatch.setattr(EmittedToken, "of", classmethod(interrupted))
    (made,) = engine.generate([PROMPT], max_tokens=9, options=[{}], on_token=lambda token: None)
    engine.close()
    assert list(made.tokens) == watched.tokens() == handed
    assert [line["reason"] for line in watched.lines("discard")] == ["not_emitted"]
    assert watched.ends() == [(2, "departed")]


def test_text_and_tokens(make_engine: Callable[..., Any]) -> None:
    engine = make_engine()
    tokens = engine.encode("Light")
    assert engine.decode(tokens) == b"".join(
        engine.llama.detokenize([token]) for token in tokens
    ).decode("utf-8", errors="replace")
    assert all(engine.spell(token) for token in range(engine.llama.n_vocab()))
    assert engine.decode([engine.llama.token_eos()]) == ""
    assert (engine.name, engine.device) == ("llama-cpp", "cpu")
    assert engine.version.startswith("0.")


@pytest.mark.parametrize(
    ("prompts", "options", "error"),
    [
        ([[5] * 64], [{}], "a prompt of 64 tokens.*n_ctx"),
        ([PROMPT, []], [{}, {}], "a prompt of 0 tokens"),
        ([PROMPT, PROMPT], [{}, {"qr_top_p": 2}], "qr_top_p=2"),
        ([PROMPT], [{"qr_bypass": 1}], "qr_bypass=1"),
    ],
)
def test_nothing_is_drawn_for_calls_that_cannot_be_served(
    make_engine: Callable[..., Any], watched: Any, prompts: Any, options: Any, error: str
) -> None:
    engine = make_engine(n_ctx=64)
    with pytest.raises(ConfigError, match=error):
        engine.generate(prompts, max_tokens=3, options=options)
    engine.close()
    assert not watched.source.draws


def test_models_and_arguments_that_cannot_be_loaded_are_refused(
    make_engine: Callable[..., Any], tmp_path: Any
) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.gguf: no such file"):
        make_engine(str(tmp_path / "nowhere.gguf"))
    with pytest.raises(ConfigError, match=r"n_context=9: unknown argument.* n_ctx, "):
        make_engine(n_context=9)
    with pytest.raises(ConfigError, match="logits_all=True: unknown argument"):
        make_engine(logits_all=True)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match="cannot load"):
        make_engine(str(broken))
    with pytest.raises(ConfigError, match=r"cannot load .*: \w+Error: "):
        make_engine(n_ctx="many")


def test_a_conversation_is_what_the_template_makes_of_it(tiny_gguf: Any, watched: Any) -> None:
    """With the template that the test writes into the file."""
    pytest.importorskip("llama_cpp", reason="the session `llama_cpp` compiles llama-cpp-python")
    engine = LlamaCppEngine(str(tiny_gguf), settings=watched.settings(), sources=watched.sources)
    try:
        assert engine.decode(engine.encode_chat(MESSAGES)) == "user: What is light?\nassistant:"
        with pytest.raises(ConfigError, match="no system messages"):
            engine.encode_chat([{"role": "system", "content": "x"}])
        engine.llama.metadata.clear()
        with pytest.raises(ConfigError, match="has no chat template"):
            engine.encode_chat(MESSAGES)
    finally:
        engine.close()


def test_a_conversation_needs_a_template(
    stand_in: ModuleType, watched: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The formatter is that of llama-cpp-python, which is only recorded here."""
    formatters: Any = ModuleType("llama_cpp.llama_chat_format")
    jinja: Any = ModuleType("jinja2")
    jinja.TemplateError = type("TemplateError", (Exception,), {})
    asked: list[Any] = []

    class Formatter:
        def __init__(self, **given: Any) -> None:
            asked.append(given)

        def __call__(self, *, messages: list[dict[str, str]]) -> Any:
            if messages[0]["role"] == "system":
                raise ValueError("no system messages")
            texts = [message["content"] for message in messages]
            return type("Response", (), {"prompt": " ".join(texts), "added_special": True})

    formatters.Jinja2ChatFormatter = Formatter
    monkeypatch.setitem(sys.modules, "llama_cpp.llama_chat_format", formatters)
    monkeypatch.setitem(sys.modules, "jinja2", jinja)
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF")
    for template in (None, "the template"):
        engine = LlamaCppEngine(
            str(file),
            settings=watched.settings(),
            arguments={"chat_template": template},
            sources=watched.sources,
        )
        if template is None:
            with pytest.raises(ConfigError, match="has no chat template"):
                engine.encode_chat(MESSAGES)
        else:
            assert engine.encode_chat(MESSAGES) == engine.encode("What is light?")
            with pytest.raises(ConfigError, match="no system messages"):
                engine.encode_chat([{"role": "system", "content": "x"}])
        engine.close()
    assert asked[0] == {"template": "the template", "eos_token": "<end>", "bos_token": ""}


class LlamaDriver(HostDriver):
    """Generates the texts of a contract with one ``Llama``, one after the other."""

    def __init__(
        self, llama: Any, settings: Settings, sources: Mapping[str, EntropySource]
    ) -> None:
        self._llama = llama
        self._sampler = LlamaCppSampler(llama, settings, sources=sources)
        self._times: list[int] = []
        self._eval = llama.eval
        llama.eval = self._timed

    def _timed(self, tokens: Sequence[int]) -> None:
        self._eval(tokens)
        # The real one may still be computing; the stand-in has finished.
        library: Any = sys.modules["llama_cpp"]
        if hasattr(library, "llama_synchronize"):
            library.llama_synchronize(self._llama.ctx)
        self._times.append(time.monotonic_ns())

    @property
    def logits_times_ns(self) -> Sequence[int]:
        return self._times

    def _improbable_end(self, ids: Any, scores: Any) -> Any:
        changed = np.copy(scores)
        changed[self._llama.token_eos()] = changed.min() - 40.0
        return changed

    def generate(
        self, requests: Sequence[HostRequest], on_token: Callable[[int, int], object]
    ) -> list[list[int]]:
        for request in requests:
            self._sampler.check(request.options)
        return [self._text(index, request, on_token) for index, request in enumerate(requests)]

    def _text(
        self, index: int, request: HostRequest, on_token: Callable[[int, int], object]
    ) -> list[int]:
        turn = self._sampler.turn(
            [5 + number for number in range(request.prompt_tokens)],
            request.options,
            max_tokens=request.max_tokens,
            processors=[self._improbable_end],
        )
        try:
            for count, token in enumerate(turn.tokens(), start=1):
                on_token(index, token)
                if count == request.abort_after:
                    break
        finally:
            turn.close()
        return list(turn.sequence.tokens)

    def close(self) -> None:
        self._sampler.close()
        del self._llama.eval


class TestLlamaCpp(HostContract):
    engine = "llama-cpp-python"
    model = "tiny.gguf"
    not_applicable = {  # noqa: RUF012
        "test_rows_of_a_step_share_a_draw": "a Llama computes one text at a time",
        "test_two_threads_keep_their_texts_apart": "a Llama computes one text at a time",
        "test_what_is_thrown_away_has_a_discard": "a stopping criterion throws a token away and "
        "ends its text, which a test of the sampler shows",
    }

    @pytest.fixture
    def start(self, make_llama: Callable[..., Any]) -> Callable[..., LlamaDriver]:
        llama = make_llama()
        return lambda settings, sources: LlamaDriver(llama, settings, sources)
