# SPDX-License-Identifier: Apache-2.0
"""Transformers as the engine of a front door."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import ConfigError, Settings
from qr_sampler.records.files import ledgers_in
from qr_sampler.records.reader import read_ledger
from qr_sampler.testing import EmittedText, WitnessSource, check_ledger
from qr_sampler_local.engines import EmittedToken, Generated, load_engine

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROMPTS = ([40, 41, 42], [50], [60, 61, 62, 63, 64])


class Loaded:
    """An engine with a ledger and a source that counts."""

    def __init__(self, model: str, folder: Path, **arguments: Any) -> None:
        from qr_sampler_local.transformers.engine import TransformersEngine

        self.source = WitnessSource()
        settings = Settings.load(
            entropy_source_type="witness",
            fallback_mode="error",
            sample_count=16,
            max_ks_distance=1.0,
            ledger_dir=folder,
            ledger_model_digest=False,
        )
        self.engine = TransformersEngine(
            model,
            settings=settings,
            arguments={"device": "cpu", **arguments},
            sources={"witness": self.source},
        )
        self._folder = folder

    def lines(self) -> list[dict[str, Any]]:
        self.engine.close()
        return [line for file in ledgers_in(self._folder) for line in read_ledger(file)]

    def check(self, texts: list[Generated]) -> None:
        """Holds the ledger against what was emitted."""
        emitted = [
            EmittedText(
                request_key=text.request_key,
                sequence=text.sequence,
                tokens=text.tokens,
                settled=text.finish_reason != "interrupted",
            )
            for text in texts
        ]
        check_ledger(self.lines(), emitted, bytes_drawn=self.source.bytes_drawn)


@pytest.fixture
def loaded(tiny_dir: Path, tmp_path: Path) -> Iterator[Loaded]:
    """The engine with the tiny model."""
    made = Loaded(tiny_dir, tmp_path)
    yield made
    made.engine.close()


def test_it_emits_every_token(loaded: Loaded) -> None:
    emitted: list[EmittedToken] = []
    options = [{"qr_request_key": f"r{row}", "qr_top_p": 0.9} for row in range(3)]
    texts = loaded.engine.generate(PROMPTS, max_tokens=6, options=options, on_token=emitted.append)
    for row, text in enumerate(texts):
        own = [token for token in emitted if token.prompt == row]
        assert tuple(token.token_id for token in own) == text.tokens
        assert [token.position for token in own] == list(range(6))
        assert all(token.source == "witness" and 0 < (token.u or 0) < 1 for token in own)
        assert (text.finish_reason, text.request_key) == ("length", f"r{row}")
    loaded.check(texts)


def test_nobody_has_to_listen(loaded: Loaded) -> None:
    texts = loaded.engine.generate(PROMPTS[:2], max_tokens=4, options=[{}, {"qr_top_k": 1}])
    assert [len(text.tokens) for text in texts] == [4, 4]
    loaded.check(texts)


def test_an_end_token_ends_a_text(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    often = transformers.GenerationConfig(eos_token_id=list(range(0, 2048, 5)))
    monkeypatch.setattr(loaded.engine._model, "generation_config", often)
    (text,) = loaded.engine.generate([[40, 41]], max_tokens=200, options=[{}])
    assert [token % 5 == 0 for token in text.tokens] == [False] * (len(text.tokens) - 1) + [True]
    assert text.finish_reason == "stop"


@pytest.mark.parametrize("at", [1, 4, 5])
def test_an_interruption_returns_what_there_is(loaded: Loaded, at: int) -> None:
    emitted: list[EmittedToken] = []

    def interrupt(token: EmittedToken) -> None:
        emitted.append(token)
        if len(emitted) == at:
            raise KeyboardInterrupt

    texts = loaded.engine.generate(PROMPTS[:2], max_tokens=3, options=[{}, {}], on_token=interrupt)
    assert sum(len(text.tokens) for text in texts) == at
    over = [text.finish_reason for text in texts]
    assert over == (["length", "interrupted"] if at == 5 else ["interrupted"] * 2)
    loaded.check(texts)


def test_an_interruption_before_the_first_token_is_raised(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loaded.engine._model, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loaded.engine.generate([[1]], max_tokens=2, options=[{}])


def test_an_error_in_the_reader_is_raised(loaded: Loaded) -> None:
    emitted: list[EmittedToken] = []

    def fail(token: EmittedToken) -> None:
        emitted.append(token)
        if len(emitted) == 4:
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        loaded.engine.generate(PROMPTS, max_tokens=5, options=[{}] * 3, on_token=fail)
    records = [line for line in loaded.lines() if line["kind"] == "token"]
    assert [line["token_id"] for line in records] == [token.token_id for token in emitted]
    assert [line["emitted"] for line in records] == [True] * 4


def test_requests_are_left_to_transformers(loaded: Loaded) -> None:
    emitted: list[EmittedToken] = []
    (text,) = loaded.engine.generate(
        [[40, 41]], max_tokens=3, options=[{"qr_bypass": 1}], on_token=emitted.append
    )
    assert text.tokens == tuple(token.token_id for token in emitted)
    assert [token.u for token in emitted] == [None] * 3
    assert text.finish_reason == "length"
    loaded.check([])


def test_texts_and_tokens(loaded: Loaded, tokenizer: Any) -> None:
    engine = loaded.engine
    assert engine.encode("Hello there") == tokenizer("Hello there")["input_ids"]
    assert engine.decode(engine.encode("Hello there")) == "Hello there"
    assert engine.decode([0]) == ""
    assert engine.spell(40) == tokenizer.decode([40])
    assert (engine.name, engine.version, engine.device) == (
        "transformers",
        transformers.__version__,
        "cpu",
    )


def test_a_conversation_takes_the_template_of_the_model(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    with pytest.raises(ConfigError, match="no chat template"):
        loaded.engine.encode_chat(messages)
    template = "{% for each in messages %}[{{ each.role }}] {{ each.content }}{% endfor %} >"
    monkeypatch.setattr(loaded.engine._tokenizer, "chat_template", template)
    tokens = loaded.engine.encode_chat(messages)
    assert loaded.engine.decode(tokens) == "[user] Hello >"
    (reply,) = loaded.engine.generate([tokens], max_tokens=2, options=[{}])
    assert len(reply.tokens) == 2


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[]], [{}], "prompt 0 has no tokens"),
        ([[1], [1] * 1020], [{}, {}], "prompt 1 has 1020 tokens, and 5 more"),
        ([[1]], [{"qr_top_p": 3}], "qr_top_p=3"),
        ([[1]], [{}, {}], "2 mappings for 1 prompts"),
    ],
)
def test_what_cannot_be_served_is_refused(
    loaded: Loaded, prompts: Any, options: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded.engine.generate(prompts, max_tokens=5, options=options)
    assert loaded.source.bytes_drawn == 0


def test_arguments_are_checked(tiny_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"devices='cpu': not an argument of this engine.*device"):
        load_engine("transformers", tiny_dir, arguments={"devices": "cpu"})
    with pytest.raises(ConfigError, match="cannot load the model '/nowhere'"):
        load_engine("transformers", "/nowhere")
    with pytest.raises(ConfigError, match="on 'abacus'"):
        load_engine("transformers", tiny_dir, arguments={"device": "abacus"})
    # Transformers raises an AttributeError there, and an ImportError.
    for name, value in (("dtype", "float99"), ("attn_implementation", "flash_attention_2")):
        with pytest.raises(ConfigError, match=r"cannot load the model .*Error: "):
            load_engine("transformers", tiny_dir, arguments={"device": "cpu", name: value})
    made = Loaded(tiny_dir, tmp_path, dtype="bfloat16", cache_implementation="static")
    texts = made.engine.generate([[40, 41]], max_tokens=3, options=[{}])
    assert made.engine._model.dtype is not None
    made.check(texts)
    assert made.lines()[0]["host"]["dtype"] == "bfloat16"


def test_parameters_that_a_model_ships_are_told_and_followed_on_request(
    tiny_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in Path(tiny_dir).iterdir():
        if file.name != "generation_config.json":
            (folder / file.name).symlink_to(file)
    transformers.GenerationConfig(
        eos_token_id=0, do_sample=True, temperature=0.5, top_k=4
    ).save_pretrained(folder)
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    with caplog.at_level(logging.INFO, "qr_sampler.local"):
        made = Loaded(str(folder), ledger)
    assert "temperature=0.5, top_k=4; qr-sampler follows them where" in caplog.text
    options = [{"qr_fixed_temperature": 1.5}, {"qr_fixed_temperature": 1.5}]
    texts = made.engine.generate(PROMPTS[:2], max_tokens=8, options=options)
    follow = [{"qr_follow_request": 1}]
    texts += made.engine.generate(PROMPTS[:1], max_tokens=8, options=follow)
    made.check(texts)
    records = [line for line in made.lines() if line["kind"] == "token"]
    assert [line["temperature"] for line in records] == [1.5] * 16 + [0.5] * 8
    assert (
        max(line["rank"] for line in records[:16]) > 4 > max(line["rank"] for line in records[16:])
    )


def test_code_that_a_model_ships_is_not_executed(
    tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the user asked at the terminal whether it may."""
    config = json.loads((Path(tiny_dir) / "config.json").read_text())
    config.update(
        model_type="unheard-of",
        auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"},
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('executed')")

    def asked(_question: str) -> str:
        pytest.fail("asked")

    monkeypatch.setattr("builtins.input", asked)
    with pytest.raises(ConfigError, match="contains custom code"):
        load_engine("transformers", str(tmp_path))


def test_prompts_are_padded_with_a_token_of_the_model(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer may have been given one that the model does not have."""
    monkeypatch.setattr(loaded.engine._tokenizer, "_pad_token", None, raising=False)
    monkeypatch.setattr(type(loaded.engine._tokenizer), "pad_token_id", 5000, raising=False)
    texts = loaded.engine.generate(PROMPTS, max_tokens=2, options=[{}] * 3)
    loaded.check(texts)
