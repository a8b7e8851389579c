# SPDX-License-Identifier: Apache-2.0
"""The loop with which ``docs/engines.md`` begins runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qr_sampler.testing import records_in

PAGE = Path(__file__).resolve().parents[3] / "docs" / "engines.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of an sdist")
def test_the_loop_runs_and_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = r"<!-- run by: [\w/-]*/test_local_engines_page\.py -->\n```python\n(.*?)```"
    (code,) = re.findall(pattern, PAGE.read_text("utf-8"), flags=re.DOTALL)
    monkeypatch.setenv("QR_LEDGER_DIR", str(tmp_path))
    names: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    tokens = getattr(names["sequence"], "tokens", None)
    assert str(tokens) in capsys.readouterr().out
    assert [line["token_id"] for line in records_in(tmp_path) if line["kind"] == "token"] == tokens
