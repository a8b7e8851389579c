# SPDX-License-Identifier: Apache-2.0
"""The recipe of ``docs/onnxruntime-genai.md`` runs as it stands, where the library is installed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qr_sampler.records.files import ledgers_in
from qr_sampler.records.reader import read_ledger

PAGE = Path(__file__).resolve().parents[4] / "docs" / "onnxruntime-genai.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of an sdist")

Lines = Callable[[], list[dict[str, Any]]]


def snippets(language: str) -> list[str]:
    pattern = rf"<!-- run by: [\w/-]*/{Path(__file__).stem}\.py -->\n```{language}\n(.*?)```"
    return re.findall(pattern, PAGE.read_text("utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module")
def library() -> Any:
    return pytest.importorskip(
        "onnxruntime_genai", reason="the session `onnxruntime_genai` installs it"
    )


@pytest.fixture(scope="module")
def folder(library: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tiny model is, and the ONNX model that the command of the page makes of it."""
    tiny = os.environ.get("QR_TINY_MODEL_DIR")
    if tiny is None:
        pytest.skip("QR_TINY_MODEL_DIR names no tiny model")
    for needed in ("onnx", "onnx_ir", "torch", "transformers"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("onnx")
    (folder / "tiny").symlink_to(tiny)
    (command,) = snippets("bash")
    _, *arguments = shlex.split(command)
    subprocess.run(
        [sys.executable, *arguments], cwd=folder, check=True, capture_output=True, timeout=300
    )
    return folder


@pytest.fixture
def lines(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """The lines of the ledger that a snippet writes."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QR_LEDGER_DIR", str(tmp_path))
    return lambda: [line for file in ledgers_in(tmp_path) for line in read_ledger(file)]


def run(number: int) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(snippets("python")[number], str(PAGE), "exec"), names)
    return names


def test_a_text_is_what_its_records_say(lines: Lines, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(0)
    tokens = names["sequence"].tokens
    records = [line for line in lines() if line["kind"] == "token"]
    assert [record["token_id"] for record in records] == tokens
    assert capsys.readouterr().out == names["tokenizer"].decode(tokens) + "\n"
    ends = [(line["tokens"], line["reason"]) for line in lines() if line["kind"] == "end"]
    assert ends == [(len(tokens), "stop")]
    history = names["generator"].get_sequence(0).tolist()
    assert history == [*names["prompt"].tolist(), *tokens[:-1]]
    (genesis,) = (line for line in lines() if line["kind"] == "genesis")
    assert genesis["engine"] == f"onnxruntime-genai {names['og'].__version__}"


def test_a_batch_is_what_its_records_say(lines: Lines) -> None:
    names = run(1)
    for index, sequence in enumerate(names["sequences"]):
        records = [
            line["token_id"]
            for line in lines()
            if line["kind"] == "token" and line["sequence"] == sequence.name
        ]
        assert records == sequence.tokens
        assert len(records) <= names["limits"][index]
        history = names["generator"].get_sequence(index).tolist()
        following = history[len(names["prompts"][index]) :]
        shared = min(len(following), len(records))
        # The last token of the text that ends last is not given to the model any more.
        assert shared >= len(records) - 1
        assert following[:shared] == records[:shared]
    draws = [line for line in lines() if line["kind"] == "draw"]
    assert len(draws) == max(len(sequence.tokens) for sequence in names["sequences"])


def test_logits_are_those_of_transformers(library: Any, folder: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokens = [977, 393, 266, 348]
    model = library.Model(str(folder / "tiny-onnx"))
    parameters = library.GeneratorParams(model)
    parameters.set_search_options(max_length=64)
    generator = library.Generator(model, parameters)
    generator.append_tokens(tokens)
    ours = [generator.get_logits()[0, -1]]
    generator.append_tokens([5])
    ours.append(generator.get_logits()[0, -1])
    with torch.no_grad():
        original = transformers.AutoModelForCausalLM.from_pretrained(folder / "tiny")
        theirs = original(torch.tensor([[*tokens, 5]])).logits[0, -2:].numpy()
    assert np.ptp(theirs) > 5.0
    np.testing.assert_allclose(np.stack(ours), theirs, rtol=0, atol=1e-3)


def test_there_are_as_many_snippets_as_are_run() -> None:
    page = PAGE.read_text("utf-8")
    assert (len(snippets("python")), len(snippets("bash"))) == (2, 1)
    assert page.count("```python") + page.count("```bash") == page.count("<!-- run by") + 1
