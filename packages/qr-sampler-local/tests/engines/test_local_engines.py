# SPDX-License-Identifier: Apache-2.0
"""Which engines are there, which one is preferred, and how they are loaded."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qr_sampler.errors import ConfigError
from qr_sampler.host import EngineFacts, SamplingSession, StepRows, StopConditions
from qr_sampler.settings import Settings
from qr_sampler_local.engines import (
    KNOWN_ENGINES,
    EmittedToken,
    EngineMissingError,
    continuation,
    installed_engines,
    known_engine,
    load_engine,
    preferred_engines,
)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes exactly the named modules importable, of those that engines need."""

    def make(*present: str) -> None:
        for module in {name for engine in KNOWN_ENGINES for name in engine.modules}:
            found = types.ModuleType(module) if module in present else None
            monkeypatch.setitem(sys.modules, module, found)

    return make


def test_an_engine_is_installed_when_all_its_modules_are(only: Any) -> None:
    only()
    assert installed_engines() == ()
    only("transformers", "mlx.core", "mlx_lm")
    assert [engine.name for engine in installed_engines()] == ["mlx"]
    assert known_engine("transformers").missing == ("torch",)
    only("transformers", "torch", "llama_cpp")
    assert [engine.name for engine in installed_engines()] == ["transformers", "llama-cpp"]


def test_a_folder_with_the_name_of_an_engine_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "mlx").mkdir()
    assert "llama_cpp" in known_engine("llama-cpp").missing or _is_really_there("llama_cpp")
    assert "mlx.core" in known_engine("mlx").missing or _is_really_there("mlx")
    (tmp_path / "llama_cpp" / "__init__.py").write_text("", "utf-8")
    assert known_engine("llama-cpp").missing == ()


def _is_really_there(package: str) -> bool:
    paths = (Path(place) / package for place in sys.path if "site-packages" in place)
    return any(path.is_dir() for path in paths)


def test_what_is_missing_is_named_with_the_command_that_installs_it(only: Any) -> None:
    only("torch")
    with pytest.raises(EngineMissingError) as caught:
        load_engine("transformers", "m")
    assert str(caught.value) == (
        "Transformers needs transformers, which is not installed; install it in a clone of the "
        "project: pip install ./packages/qr-sampler-accel "
        "'./packages/qr-sampler-local[transformers]'"
    )


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no engine 'jax'; choose one of transformers, mlx, ll"):
        load_engine("jax", "m")


def test_an_adapter_is_made_with_model_settings_and_arguments(
    only: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def adapter(model: str, **rest: Any) -> object:
        made.append((model, rest))
        return "an engine"

    only("llama_cpp")
    module = types.ModuleType("qr_sampler_local.llama_cpp.engine")
    vars(module)["LlamaCppEngine"] = adapter
    monkeypatch.setitem(sys.modules, "qr_sampler_local.llama_cpp.engine", module)
    settings = Settings()
    assert load_engine("llama-cpp", "a.gguf", settings, arguments={"n_ctx": 64}) == "an engine"
    assert load_engine("llama-cpp", "b.gguf") == "an engine"
    assert made == [
        ("a.gguf", {"settings": settings, "arguments": {"n_ctx": 64}}),
        ("b.gguf", {"settings": None, "arguments": {}}),
    ]


def test_an_adapter_that_does_not_import_says_why(
    only: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    only("llama_cpp")
    monkeypatch.setitem(sys.modules, "qr_sampler_local.llama_cpp.engine", None)
    with pytest.raises(EngineMissingError, match=r"is installed but does not import \(Module"):
        load_engine("llama-cpp", "a.gguf")


@pytest.mark.parametrize(
    ("model", "system", "machine", "names"),
    [
        ("a/b.GGUF", "linux", "x86_64", ("llama-cpp",)),
        ("b.gguf", "darwin", "arm64", ("llama-cpp",)),
        ("owner/name", "darwin", "arm64", ("mlx", "transformers")),
        ("owner/name", "darwin", "x86_64", ("transformers", "mlx")),
        ("/folder", "linux", "aarch64", ("transformers", "mlx")),
        ("/folder", "win32", "AMD64", ("transformers", "mlx")),
    ],
)
def test_preference_follows_model_and_machine(
    model: str, system: str, machine: str, names: tuple[str, ...]
) -> None:
    assert preferred_engines(model, system=system, machine=machine) == names


class Bytes:
    """Decodes tokens that are bytes of UTF-8, and drops a leading space as many tokenizers do."""

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode("utf-8", "replace").removeprefix(" ")


@pytest.mark.parametrize(
    ("prompt", "tokens", "text"),
    [
        (b"one", b" two", " two"),
        (b"", b" two", "two"),
        (b"one", b"", ""),
        ("ä".encode()[:1], "ä".encode()[1:], "�"),
    ],
)
def test_a_continuation_keeps_the_space_before_its_first_word(
    prompt: bytes, tokens: bytes, text: str
) -> None:
    assert continuation(Bytes(), list(prompt), list(tokens)) == text


def test_a_token_says_what_chose_it_as_its_record_does() -> None:
    settings = Settings(entropy_source_type="mock_uniform", fallback_mode="error")
    session = SamplingSession(EngineFacts(engine="toy", model="toy"), settings)
    sequence = session.begin({}, StopConditions(max_tokens=2))
    assert sequence is not None
    logits = np.linspace(0, 1, 8, dtype=np.float32)[None].copy()
    (outcome,) = session.decide(logits, StepRows([0], [sequence], [0]))
    token = EmittedToken.of(3, outcome)
    entry: Any = outcome.entry(sequence, emitted=True)
    record = entry.step.u[0], entry.step.rank[0]
    assert (token.prompt, token.position, token.token_id) == (3, 0, int(logits[0].argmax()))
    assert (token.u, token.rank) == record
    assert (token.source, token.fallback) == ("mock_uniform", False)
    session.close()


def test_a_token_that_no_entropy_has_chosen_says_so() -> None:
    session = SamplingSession(EngineFacts(engine="toy", model="toy"), Settings())
    sequence = session.begin({}, StopConditions(max_tokens=2))
    assert sequence is not None
    logits = np.full((1, 8), np.nan, dtype=np.float32)
    (outcome,) = session.decide(logits, StepRows([0], [sequence], [0]))
    token = EmittedToken.of(0, outcome)
    assert (token.u, token.rank, token.source, token.fallback) == (None, None, None, False)
    session.close()
