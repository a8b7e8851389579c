# SPDX-License-Identifier: Apache-2.0
"""The examples of ``docs/transformers.md`` run, one after the other, as they stand."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from qr_sampler.testing import records_in

pytest.importorskip("torch")
pytest.importorskip("transformers")

PAGE = Path(__file__).resolve().parents[4] / "docs" / "transformers.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of an sdist")


def test_examples(
    tiny_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("QR_ENTROPY_SOURCE_TYPE", "system")
    monkeypatch.setenv("QR_LEDGER_DIR", str(tmp_path))
    monkeypatch.setenv("QR_LEDGER_MODEL_DIGEST", "false")
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(examples) == 8
    names: dict[str, Any] = {"MODEL": tiny_dir}
    for number, example in enumerate(examples):
        exec(compile(example, f"{PAGE.name}, example {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert printed.startswith("Once upon a time")
    assert "top_p=0.9: Transformers' own sampling parameters" in printed
    records = [line for line in records_in(tmp_path) if line["kind"] == "token"]
    assert len(records) > 50
    assert {line["request_key"] for line in records} >= {"colour", "sky"}
    assert {line["emitted"] for line in records} == {True}


def test_names_exist() -> None:
    from qr_sampler_local.transformers import TransformersSampler

    text = PAGE.read_text("utf-8")
    names = set(re.findall(r"sampler\.(\w+)\(", text))
    assert names >= {"generate", "custom_generate", "processor", "close"}
    assert [name for name in names if not hasattr(TransformersSampler, name)] == []
    ours = inspect.signature(TransformersSampler.generate).parameters
    for argument in ("options", "max_tokens", "after_step", "streamer", "tokenizer"):
        assert argument in ours
        assert f"{argument}=" in text
