# SPDX-License-Identifier: Apache-2.0
"""MLX-LM behind the protocol of engines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import ConfigError, Settings
from qr_sampler.testing import WitnessSource, records_in

pytest.importorskip("mlx_lm", reason="MLX-LM is not installed")

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import ConcatenateKVCache

from qr_sampler_local.engines import EmittedToken, LocalEngine, load_engine
from qr_sampler_local.mlx import engine
from qr_sampler_local.mlx.decoding import Decoding
from qr_sampler_local.mlx.engine import MLXEngine

PROMPTS = ([40, 445, 79, 418], [40], [40, 445, 79, 418, 40, 445])
MakeSettings = Callable[..., Settings]


class Run:
    """An engine with a source that keeps its own account, and its ledger."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.source = WitnessSource()
        self.engine = MLXEngine(str(path), settings=settings, sources=[self.source])
        self._folder = Path(str(settings.ledger_dir))

    def generate(self, count: int, on_token: Any = None, **options: Any) -> Any:
        """Generates *count* tokens for each prompt."""
        return self.engine.generate(
            PROMPTS, max_tokens=count, options=[options] * len(PROMPTS), on_token=on_token
        )

    def emitted(self) -> dict[str, list[int]]:
        """Ends the engine and returns the recorded tokens by sequence."""
        self.engine.close()
        texts: dict[str, list[int]] = {}
        for line in records_in(self._folder):
            if line["kind"] in ("token", "forced"):
                assert line["emitted"] is True
                texts.setdefault(line["sequence"], []).append(line["token_id"])
        return texts


@pytest.fixture
def run(tiny_dir: Path, settings_of: MakeSettings) -> Iterator[Run]:
    """An engine with the tiny model."""
    made = Run(tiny_dir, settings_of())
    yield made
    made.engine.close()


def test_the_front_door_finds_it(tiny_dir: Path, settings_of: MakeSettings) -> None:
    settings = settings_of(entropy_source_type="system")
    made: LocalEngine = load_engine("mlx", str(tiny_dir), settings)
    assert (made.name, made.device) == ("mlx", str(mx.default_device().type).split(".")[-1])
    assert made.version.count(".") >= 1
    tokens = made.encode("Hello there")
    assert made.decode(tokens) == "Hello there"
    assert "".join(made.spell(token) for token in tokens) == "Hello there"
    (text,) = made.generate([tokens], max_tokens=2, options=[{}])
    assert 1 <= len(text.tokens) <= 2
    assert text.finish_reason == ("stop" if text.tokens[-1] == 0 else "length")
    made.close()
    made.close()


def test_each_token_is_handed_over_with_what_chose_it(run: Run) -> None:
    handed: list[EmittedToken] = []
    texts = run.generate(5, handed.append, request_key="asked")
    for index, text in enumerate(texts):
        own = [token for token in handed if token.prompt == index]
        assert tuple(token.token_id for token in own) == text.tokens
        assert [token.position for token in own] == list(range(len(own)))
        assert all(token.source == "witness" and 0 < (token.u or 0) < 1 for token in own)
    assert {text.request_key for text in texts} == {"asked"}
    recorded = run.emitted()
    assert recorded == {text.sequence: list(text.tokens) for text in texts}
    assert run.source.bytes_drawn == 16 * sum(len(text.tokens) for text in texts)


def test_rows_of_texts_that_have_ended_are_left_out(
    tiny_dir: Path, settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    computed = Decoding.logits

    def watched(self: Decoding, tokens: Any) -> mx.array:
        widths.append(len(tokens))
        return computed(self, tokens)

    monkeypatch.setattr(Decoding, "logits", watched)
    run = Run(tiny_dir, settings_of())
    # Half of the vocabulary ends a text, so that the texts end at different times.
    run.engine._tokenizer._eos_token_ids = set(range(0, 2048, 2))
    texts = run.generate(40)
    lengths = sorted(len(text.tokens) for text in texts)
    assert {text.finish_reason for text in texts} == {"stop"}
    assert len(set(lengths)) > 1
    assert widths == [sum(length > step for length in lengths) for step in range(lengths[-1])]
    assert sum(widths) * 16 == run.source.bytes_drawn
    assert sorted(run.emitted().values()) == sorted(list(text.tokens) for text in texts)


def test_an_interrupt_returns_what_there_is(run: Run) -> None:
    handed: list[EmittedToken] = []

    def interrupt(token: EmittedToken) -> None:
        handed.append(token)
        if len(handed) == 5:
            raise KeyboardInterrupt

    texts = run.generate(9, interrupt)
    assert [len(text.tokens) for text in texts] == [2, 2, 1]
    assert {text.finish_reason for text in texts} == {"interrupted"}
    assert run.emitted() == {text.sequence: list(text.tokens) for text in texts}
    assert run.source.bytes_drawn == 6 * 16


def test_a_text_that_loses_its_source_stops_with_an_end_token(
    tiny_dir: Path, settings_of: MakeSettings
) -> None:
    run = Run(tiny_dir, settings_of(fallback_mode="end_request"))
    run.source.fail_after = 2
    texts = run.generate(9)
    assert {text.finish_reason for text in texts} == {"stop"}
    assert {text.tokens[-1] for text in texts} == {0}
    assert run.emitted() == {text.sequence: list(text.tokens) for text in texts}


def test_an_error_of_the_listener_is_raised_when_the_records_are_complete(run: Run) -> None:
    def fail(token: EmittedToken) -> None:
        if token.position == 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run.generate(9, fail)
    assert sorted(map(len, run.emitted().values())) == [1, 1, 2]


def test_what_is_left_to_the_model_is_its_most_probable_token(run: Run) -> None:
    handed: list[EmittedToken] = []
    texts = run.generate(4, handed.append, bypass=1)
    assert run.source.draws == []
    assert {token.u for token in handed} == {None}
    model = run.engine._model
    for prompt, text in zip(PROMPTS, texts, strict=True):
        tokens = list(prompt)
        for token in text.tokens:
            row = np.array(model(mx.array([tokens]))[0, -1])
            assert row[token] >= row.max() - 1e-3
            tokens.append(token)
    assert run.emitted() == {}


@pytest.mark.parametrize("cache", [None, ConcatenateKVCache], ids=["merged", "one by one"])
def test_a_batch_computes_what_each_text_gets_alone(loaded: tuple[Any, Any], cache: Any) -> None:
    model = loaded[0]
    if cache is not None:
        model = WithCache(model, cache)
    together = Decoding(model, PROMPTS, prefill_step_size=3)
    alone = [Decoding(model, [prompt], prefill_step_size=2048) for prompt in PROMPTS]
    tokens, texts = [prompt[-1] for prompt in PROMPTS], [0, 1, 2]
    for step in range(5):
        rows = together.logits(tokens)
        for row, index, token in zip(rows, texts, tokens, strict=True):
            np.testing.assert_allclose(row, alone[index].logits([token])[0], atol=1e-3)
        tokens = [100 + step + index for index in texts]
        if step == 2:
            together.keep([0, 2])
            texts, tokens = [0, 2], [tokens[0], tokens[2]]


class WithCache:
    """A model whose layers remember in a certain way."""

    def __init__(self, model: Any, kind: Any) -> None:
        self._model = model
        self._kind = kind

    def make_cache(self) -> list[Any]:
        return [self._kind() for _ in self._model.layers]

    def __call__(self, tokens: mx.array, **rest: Any) -> Any:
        return self._model(tokens, **rest)


def test_a_conversation_becomes_tokens_by_the_template_of_the_model(
    tiny_dir: Path, tmp_path: Path, settings_of: MakeSettings, run: Run
) -> None:
    messages = [{"role": "user", "content": "Hello there"}]
    with pytest.raises(ConfigError, match="no chat template"):
        run.engine.encode_chat(messages)
    folder = tmp_path / "chatty"
    shutil.copytree(tiny_dir, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    config["chat_template"] = (
        "{% for m in messages %}{{ raise_exception('who?') if m.role == 'x' }}"
        "{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    chatty = MLXEngine(str(folder), settings=settings_of(entropy_source_type="system"))
    tokens = chatty.encode_chat(messages)
    assert chatty.decode(tokens) == "user: Hello there\nassistant:"
    with pytest.raises(ConfigError, match="refuses the messages"):
        chatty.encode_chat([{"role": "x", "content": ""}])
    chatty.close()


@pytest.mark.parametrize(
    ("prompts", "count", "options", "message"),
    [
        ([[]], 3, [{}], "a prompt has no tokens"),
        ([[40] * 1024], 3, [{}], "1024 tokens, and the model's context 1024"),
        ([[40], [40]], 3, [{}, {"qr_sample_count": "many"}], "qr_sample_count"),
        ([[40]], 3, [{"no_such_key": 1}], "no_such_key"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_is_drawn(
    run: Run, prompts: Any, count: int, options: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run.engine.generate(prompts, max_tokens=count, options=options)
    assert run.source.draws == []
    assert run.engine._sampler.open_sequences() == []


def test_a_text_ends_with_the_context_of_the_model(run: Run) -> None:
    (text,) = run.engine.generate([[40] * 1021], max_tokens=9, options=[{}])
    assert (len(text.tokens), text.finish_reason) == (3, "length")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cpu"}, "no argument 'device' here; it takes"),
        ({"prefill_step_size": 0}, "prefill_step_size=0: expected"),
        ({"prefill_step_size": True}, "prefill_step_size=True: expected"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(
    tiny_dir: Path, arguments: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        MLXEngine(str(tiny_dir), arguments=arguments)


def test_digests_are_of_the_files_that_were_loaded(
    tiny_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "hf_repo_to_path", Path("/cache").joinpath)
    assert engine.files_of(str(tiny_dir), {}) == tiny_dir
    assert engine.files_of("owner/name", {}) == Path("/cache/owner/name")
    assert engine.files_of("owner/name", {"revision": "main"}) is None


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MLX-LM does not load the model"):
        MLXEngine(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "content"),
    [("model.safetensors", "none"), ("config.json", "[]"), ("tokenizer.json", "{}")],
)
def test_a_model_with_a_broken_file_is_refused(
    tiny_dir: Path, tmp_path: Path, file: str, content: str
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_dir, folder)
    (folder / file).write_text(content, "utf-8")
    with pytest.raises(ConfigError, match="MLX-LM does not load the model"):
        MLXEngine(str(folder))
