# SPDX-License-Identifier: Apache-2.0
"""What the page of MLX-LM shows runs as it stands, but for the model."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from qr_sampler.testing import records_in

pytest.importorskip("mlx_lm", reason="MLX-LM is not installed")

PAGE = Path(__file__).resolve().parents[4] / "docs" / "mlx.md"
MODEL = "mlx-community/Qwen2.5-0.5B-Instruct-4bit"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of an sdist")


def blocks(language: str) -> list[str]:
    """Returns the examples of the page in one language."""
    text = PAGE.read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def chatty(tiny_dir: Path, tmp_path: Path) -> Path:
    """The tiny model, as if it had been trained to converse."""
    folder = tmp_path / "chatty"
    shutil.copytree(tiny_dir, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    config["chat_template"] = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder


def test_the_examples_run_and_are_recorded(
    chatty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlx_lm

    loads = mlx_lm.load
    asked: list[str] = []

    def load(name: str) -> Any:
        asked.append(name)
        return loads(str(chatty))

    monkeypatch.setattr(mlx_lm, "load", load)
    monkeypatch.setenv("QR_LEDGER_DIR", str(tmp_path / "ledger"))
    names: dict[str, Any] = {}
    examples = blocks("python")
    assert len(examples) == 4
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)
    assert asked == [MODEL]
    texts: dict[str, list[int]] = {}
    for line in records_in(tmp_path / "ledger"):
        if line["kind"] == "token":
            assert line["emitted"] is True
            texts.setdefault(line["sequence"], []).append(line["token_id"])
    assert len(texts) == 1 + 1 + 2 + 3
    for sequence in (names["first"], names["second"]):
        assert texts[sequence.name] == sequence.tokens
    for sequence, text in zip(names["sequences"], names["texts"], strict=True):
        assert texts[sequence.name] == text


def test_the_command_line_runs(
    tiny_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if importlib.util.find_spec("qr_sampler_cli") is None:
        pytest.skip("the command line is not installed")
    (line,) = [line for block in blocks("sh") for line in block.splitlines() if "generate" in line]
    program, *arguments = shlex.split(line)
    assert program == "qr-sampler"
    arguments[arguments.index(MODEL)] = str(tiny_dir)
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    monkeypatch.setenv("QR_LEDGER_DIR", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("qr_sampler_cli", run_name="__main__")
    assert not caught.value.code, capsys.readouterr().out
    assert 1 <= len([line for line in records_in(tmp_path) if line["kind"] == "token"]) <= 20


def test_the_way_to_install_names_packages_that_are_there() -> None:
    command = next(block for block in blocks("sh") if block.startswith("pip install"))
    for argument in shlex.split(command)[2:]:
        folder, _, extra = argument.partition("[")
        project = PAGE.parents[1] / folder / "pyproject.toml"
        assert not extra or f"\n{extra.rstrip(']')} = [" in project.read_text("utf-8")


def test_the_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", PAGE.read_text("utf-8"))
    assert [target for target in targets if not (PAGE.parent / target).exists()] == []
