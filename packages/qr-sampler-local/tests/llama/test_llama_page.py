# SPDX-License-Identifier: Apache-2.0
"""Every snippet of ``docs/llama-cpp.md`` runs as it stands, where llama-cpp-python is installed."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from qr_sampler.records.files import ledgers_in
from qr_sampler.records.reader import read_ledger

PAGE = Path(__file__).resolve().parents[4] / "docs" / "llama-cpp.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of an sdist")


def snippets(language: str) -> list[str]:
    pattern = rf"<!-- run by: [\w/-]*/test_llama_page\.py -->\n```{language}\n(.*?)```"
    return re.findall(pattern, PAGE.read_text("utf-8"), flags=re.DOTALL)


@pytest.fixture
def folder(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the tiny model is, as a directory and as a file, and nothing else."""
    pytest.importorskip("llama_cpp", reason="the session `llama_cpp` compiles llama-cpp-python")
    (tmp_path / "tiny.gguf").symlink_to(tiny_gguf)
    (tmp_path / "tiny").symlink_to(os.environ["QR_TINY_MODEL_DIR"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QR_LEDGER_DIR", str(tmp_path / "ledger"))
    return tmp_path


@pytest.mark.parametrize("number", range(2))
def test_python_runs_and_is_recorded(
    folder: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, object] = {}
    exec(compile(snippets("python")[number], str(PAGE), "exec"), names)
    lines = [line for file in ledgers_in(folder / "ledger") for line in read_ledger(file)]
    ends = [line for line in lines if line["kind"] == "end"]
    assert len(ends) == (3, 1)[number]
    assert sum(end["tokens"] for end in ends) == sum(line["kind"] == "token" for line in lines)
    if number == 0:
        keyed = [line for line in lines if line.get("request_key") == "my question"]
        assert {line["temperature_strategy"] for line in keyed if line["kind"] == "token"} == {
            "edt"
        }
    else:
        tokens = [line["token_id"] for line in lines if line["kind"] == "token"]
        assert names["tokens"] == tokens
        assert len(tokens) == 20
    assert capsys.readouterr().out.strip()
    names["llama"].close()  # type: ignore[attr-defined]


def test_the_commands_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is left out: the model is there."""
    pytest.importorskip("qr_sampler_cli")
    from typer.testing import CliRunner

    from qr_sampler_cli.commands import tiny_model
    from qr_sampler_cli.main import app

    monkeypatch.setattr(tiny_model, "prepare_tiny_model", lambda directory, **given: "there")
    (block,) = snippets("bash")
    make, generate = block.splitlines()
    (folder / "tiny.gguf").unlink()
    made = CliRunner().invoke(app, shlex.split(make)[1:])
    assert made.exit_code == 0, made.output
    assert (folder / "tiny.gguf").read_bytes()[:4] == b"GGUF"
    generated = CliRunner().invoke(app, shlex.split(generate)[1:])
    assert generated.exit_code == 0, generated.output
    assert "12 tokens" in generated.output


def test_there_are_as_many_snippets_as_are_run() -> None:
    page = PAGE.read_text("utf-8")
    assert len(snippets("python")) == 2
    assert len(snippets("bash")) == 1
    assert page.count("```python") + page.count("```bash") == page.count("<!-- run by") + 1
