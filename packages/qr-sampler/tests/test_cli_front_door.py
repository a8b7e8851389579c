# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler generate`` with engines other than vLLM: which it takes, and what comes of it.

The engine is made up and its sampler is real. That real engines behave as it does is shown by
``test_cli_engine.py``, where they are installed.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from qr_sampler.errors import ConfigError
from qr_sampler.settings import Settings
from qr_sampler_cli.engines import choice as choice_module
from qr_sampler_cli.engines.arriving_records import ArrivingRecords
from qr_sampler_cli.engines.choice import EngineName, choose_engine
from qr_sampler_cli.engines.models import check_model
from qr_sampler_cli.failures import MissingPackageError
from qr_sampler_cli.main import app
from qr_sampler_cli.terminal.consoles import progress_console
from qr_sampler_cli.terminal.progress import stage
from qr_sampler_local import LocalSampler
from qr_sampler_local.engines import EmittedToken, Generated, TokenListener, known_engine

VOCAB_SIZE = 128
END = 0


class MadeUpEngine:
    """Every character is a token; its logits follow from nothing but the position."""

    name = "transformers"
    version = "1.2.3"
    device = "cpu"
    latest: MadeUpEngine

    def __init__(self, model: str, settings: Settings, arguments: Mapping[str, Any]) -> None:
        MadeUpEngine.latest = self
        self.model, self.arguments = model, arguments
        self.environment = dict(os.environ)
        self.is_closed = False
        self.listener: Callable[[EmittedToken], object] = lambda token: None
        self._sampler = LocalSampler(model, settings, engine="made-up 1.2.3")

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        raise ConfigError("no template")

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(chr(token) for token in tokens if token != END)

    def spell(self, token_id: int) -> str:
        return chr(token_id)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        options: Sequence[Mapping[str, object]],
        on_token: TokenListener | None = None,
    ) -> list[Generated]:
        sequences = [
            self._sampler.sequence(prompt, end_tokens=[END], max_tokens=max_tokens, **option)
            for prompt, option in zip(prompts, options, strict=True)
        ]
        interrupted = False
        try:
            while not all(sequence.ended for sequence in sequences):
                self.step([each for each in sequences if not each.ended], sequences)
        except KeyboardInterrupt:
            interrupted = True
        made = []
        for sequence in sequences:
            over = sequence.finish_reason
            self._sampler.close(sequence)
            made.append(
                Generated(
                    sequence=sequence.name,
                    request_key=sequence.request_key,
                    tokens=tuple(sequence.tokens),
                    finish_reason="interrupted" if interrupted and not over else "length",
                )
            )
        return made

    def step(self, running: list[Any], every: list[Any]) -> None:
        logits = np.zeros((len(running), VOCAB_SIZE), dtype=np.float32)
        logits[:, ord("a") : ord("z") + 1] = 20
        self._sampler.step(logits, running)
        for sequence in running:
            self._sampler.emitted(sequence)
            self.listener(EmittedToken.of(every.index(sequence), sequence.outcome))

    def close(self) -> None:
        self.is_closed = True
        self._sampler.close()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says what is installed: engines by their names, and why vLLM is not."""

    def say(*names: str, absence: str = "vLLM is not installed") -> None:
        engines = tuple(known_engine(name) for name in names)
        monkeypatch.setattr(choice_module, "installed_engines", lambda: engines)
        monkeypatch.setattr(choice_module.plugin, "absence", lambda: absence)
        there = absence != "vLLM is not installed"
        monkeypatch.setattr(choice_module.plugin, "_has_vllm", lambda: there)

    return say


@pytest.fixture
def made_up(installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is installed but Transformers, which is made up."""
    installed("transformers")

    def load(name: str, model: str, settings: Settings, *, arguments: Any) -> MadeUpEngine:
        assert name == "transformers"
        return MadeUpEngine(model, settings, arguments)

    monkeypatch.setattr("qr_sampler_cli.engines.loading.load_engine", load)
    for name in [name for name in os.environ if name.startswith(("QR_", "HF_"))]:
        monkeypatch.delenv(name)


def generate(*arguments: str, model: str = "m") -> Result:
    return CliRunner().invoke(app, ["generate", f"--model={model}", *arguments])


def test_the_table_and_the_summary_are_those_of_any_engine(made_up: None) -> None:
    result = generate("Once", "--max-tokens=3", "--top-k=26", "--engine-arg=device=cpu")
    assert result.exit_code == 0, result.stderr
    assert "engine: Transformers, because vLLM is not installed\n" in result.stderr
    assert "starting Transformers with m" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Once")
    assert len(lines[0]) == len("Once") + 3
    assert lines[2].split()[:5] == ["#", "token", "id", "u", "rank"]
    assert all(line.split()[-2:] == ["system", "no"] for line in lines[3:6])
    assert lines[-1].startswith("3 tokens | 100.0 % from system | 0.0 % fallback | mean u 0.")
    engine = MadeUpEngine.latest
    assert engine.arguments == {"device": "cpu"}
    assert engine.is_closed
    assert not Path(engine.environment["QR_LEDGER_DIR"]).exists()


def test_json_and_records_are_those_of_any_engine(made_up: None, tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    result = generate(
        "one", "two", "--max-tokens=4", "--json", f"--records={file}", "--require-primary"
    )
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["engine"] == "Transformers 1.2.3 on cpu"
    assert document["discrepancies"] == []
    assert document["summary"]["primary_tokens"] == 8
    for completion in document["completions"]:
        assert completion["finish_reason"] == "length"
        assert "".join(token["text"] for token in completion["tokens"]) == completion["text"]
        assert all(
            token["record"]["token_id"] == token["token_id"] for token in completion["tokens"]
        )
    kinds = [json.loads(line)["kind"] for line in file.read_text("utf-8").splitlines()]
    assert kinds[0] == "genesis"
    assert kinds.count("token") == 8


def test_an_interrupted_run_is_shown_and_judged(
    made_up: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(token: EmittedToken) -> None:
        if token.position == 2:
            raise KeyboardInterrupt

    original = MadeUpEngine.step

    def step(self: MadeUpEngine, *arguments: Any) -> None:
        self.listener = interrupt
        original(self, *arguments)

    monkeypatch.setattr(MadeUpEngine, "step", step)
    result = generate("p", "--max-tokens=9")
    assert result.exit_code == 130, result.stderr
    assert result.stdout.splitlines()[-1].startswith("3 tokens | 100.0 % from system")


def test_an_engine_that_fails_is_closed_and_named(
    made_up: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def step(self: MadeUpEngine, *_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(MadeUpEngine, "step", step)
    result = generate("p")
    assert result.exit_code == 2
    assert "error: Transformers failed while generating: RuntimeError: out of" in result.stderr
    assert MadeUpEngine.latest.is_closed


def test_a_bad_option_is_refused_before_the_engine_starts(
    made_up: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MadeUpEngine, "__init__", None)
    result = generate("p", "--set=qr_bogus=1")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: qr_bogus='1': unknown key")


@pytest.mark.parametrize(
    ("present", "absence", "model", "chosen"),
    [
        ((), "", "folder", "vllm"),
        (("transformers", "mlx", "llama-cpp"), "", "folder", "vllm"),
        (("transformers", "llama-cpp"), "", "a.gguf", "llama-cpp"),
        (("transformers",), "", "a.gguf", "vllm"),
        (("transformers", "mlx"), "vLLM is not installed", "folder", "transformers"),
        (("mlx", "llama-cpp"), "vLLM is not installed", "folder", "mlx"),
        (("mlx", "llama-cpp"), "vLLM is not installed", "a.GGUF", "llama-cpp"),
    ],
)
def test_auto_takes_vllm_unless_something_else_fits_better(
    installed: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    present: tuple[str, ...],
    absence: str,
    model: str,
    chosen: str,
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    installed(*present, absence=absence)
    choice = choose_engine(EngineName.AUTO, model)
    assert choice.name == chosen
    assert choice.reason


def test_where_nothing_is_installed_the_error_names_what_to_install(
    installed: Callable[..., None],
) -> None:
    installed()
    result = generate("p")
    assert result.exit_code == 2
    assert "pip install './packages/qr-sampler[transformers]'" in result.stderr.replace("\n", " ")
    assert "pip install vllm" in result.stderr
    result = generate("p", model="x.gguf")
    assert "pip install './packages/qr-sampler[llama-cpp]'" in result.stderr


def test_what_is_installed_and_does_not_read_the_model_is_named(
    installed: Callable[..., None],
) -> None:
    installed("llama-cpp")
    with pytest.raises(MissingPackageError, match=r"\(llama-cpp-python does not read it\)"):
        choose_engine(EngineName.AUTO, "folder")


def test_vllm_without_the_plugin_is_told_from_none(
    installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(absence="vLLM is installed without qr-sampler-vllm")
    monkeypatch.setattr(choice_module.plugin, "_has_vllm", lambda: True)
    with pytest.raises(MissingPackageError, match=r"or the plugin for vLLM .*qr-sampler-vllm$"):
        choose_engine(EngineName.AUTO, "folder")


def test_a_named_engine_that_is_missing_is_not_replaced_by_another(
    installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("transformers", absence="")
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    result = generate("p", "--engine=llama-cpp", model="x.gguf")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --engine llama-cpp needs llama_cpp, which is not inst")
    assert "pip install './packages/qr-sampler[llama-cpp]'" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"", "is no .gguf file"), (b"PK\x03\x04zip", "is no .gguf file")],
)
def test_a_model_for_llama_cpp_is_a_gguf_file(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "model.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        check_model(str(file), gguf=True)
    file.write_bytes(b"GGUF\x03\x00\x00\x00")
    check_model(str(file), gguf=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_pipe_is_no_model_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.gguf")
    with pytest.raises(ConfigError, match=r"this is no \.gguf file"):
        check_model(str(tmp_path / "model.gguf"), gguf=True)


def test_records_are_read_as_they_arrive(tmp_path: Path) -> None:
    (tmp_path / "earlier.jsonl").write_text('{"kind": "token", "request_key": "a"}\n', "utf-8")
    records = ArrivingRecords(tmp_path)
    records.expect(["a"])
    line = {"kind": "token", "request_key": "a", "sequence": "s", "position": 0, "u": 0.5}
    text = json.dumps(line) + "\n"
    with (tmp_path / "ledger.jsonl").open("w", encoding="utf-8") as file:
        file.write(text[:20])
        file.flush()
        records.read()
        assert records.take("a", 0) is None
        file.write(text[20:] + json.dumps({**line, "position": 1, "u": 0.25}) + "\n")
        file.flush()
    records.read()
    first, second = records.take("a", 0), records.take("a", 1)
    assert first is not None
    assert second is not None
    assert (first["u"], second["u"]) == (0.5, 0.25)
    assert records.sequence("a") == "s"
    assert records.take("a", 0) is None
    records.forget("a")
    assert records.sequence("a") == ""


def test_records_of_other_engines_are_not_kept(tmp_path: Path) -> None:
    records = ArrivingRecords(tmp_path)
    records.expect(["a"])
    line = {"kind": "token", "request_key": "b", "sequence": "s", "position": 0, "u": 0.5}
    (tmp_path / "ledger.jsonl").write_text(json.dumps(line) + "\n", "utf-8")
    records.read()
    assert records.take("b", 0) is None
    assert records.sequence("b") == ""


def test_nobody_asks_for_records_without_a_directory() -> None:
    records = ArrivingRecords(None)
    records.read()
    assert records.take("a", 0) is None


def test_progress_of_a_terminal_names_the_engine(
    made_up: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    terminal = progress_console()
    terminal.file = io.StringIO()
    monkeypatch.setattr("qr_sampler_cli.terminal.progress.progress_console", lambda: terminal)
    assert generate("p", "--no-table", "--max-tokens=2").exit_code == 0
    assert "starting Transformers with m" in terminal.file.getvalue()


def test_progress_of_a_terminal_takes_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    terminal = progress_console()
    terminal.file = io.StringIO()
    monkeypatch.setattr("qr_sampler_cli.terminal.progress.progress_console", lambda: terminal)
    with stage("starting with ./[/x]\x1b]0;title\x07"):
        pass
    assert "starting with ./[/x]\\x1b]0;title\\x07" in terminal.file.getvalue()


def test_names_cannot_steer_the_terminal(made_up: None, tmp_path: Path) -> None:
    records = tmp_path / "\x1b]0;title\x07\u202e.jsonl"
    result = generate("p", "--no-table", "--max-tokens=2", f"--records={records}")
    assert result.exit_code == 0, result.stderr
    assert "\x1b" not in result.stdout + result.stderr
    assert "\\x1b]0;title\\x07\\u202e.jsonl" in result.stdout
