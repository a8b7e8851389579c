# SPDX-License-Identifier: Apache-2.0
"""The README's examples are run, and what it says of other files is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qr_sampler_local import LocalSampler
from qr_sampler_local.loop import sequence

README = Path(__file__).resolve().parents[1] / "README.md"
TEXT = README.read_text("utf-8")


@pytest.mark.parametrize("number", [0, 1])
def test_examples(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path))
    examples = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(examples) == 2
    exec(compile(examples[number], str(README), "exec"), {"__name__": "example"})
    if number == 0:
        assert re.fullmatch(r"\[[\d, ]+\] (stop|length)\n", capsys.readouterr().out)
    else:
        (ledger,) = tmp_path.glob("*.jsonl")
        assert ledger.read_text("utf-8").count('"kind":"token"') == 13


def test_names_exist() -> None:
    for name in re.findall(r"`sampler\.(\w+)\(", TEXT):
        assert hasattr(LocalSampler, name), name
    assert sequence.LEFT_TO_CALLER == -1
    assert 'return "forced"' in Path(sequence.__file__).read_text("utf-8")


@pytest.mark.skipif(
    not (README.parents[2] / "docs").exists(), reason="only in the repository, not in this archive"
)
def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", TEXT)
    assert len(targets) > 8
    assert [target for target in targets if not (README.parent / target).exists()] == []
