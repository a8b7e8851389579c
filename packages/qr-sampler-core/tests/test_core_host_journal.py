# SPDX-License-Identifier: Apache-2.0
"""The ledger file of one engine process."""

from __future__ import annotations

import json
from pathlib import Path

from qr_sampler import Settings
from qr_sampler.host.journal import Journal
from qr_sampler.testing import ConstantEntropySource


def test_journal_starts_with_a_genesis_line_that_gives_nothing_away(tmp_path: Path) -> None:
    settings = Settings.load(ledger_dir=tmp_path / "ledger", baseline_file=tmp_path / "base.json")
    model = str(tmp_path / "models" / "tiny")
    journal = Journal(settings, [ConstantEntropySource()], engine="toy", model=model)
    journal.close()
    (file,) = (tmp_path / "ledger").glob("*.jsonl")
    line, *others = file.read_text(encoding="utf-8").splitlines()
    genesis = json.loads(line)
    assert [other["kind"] for other in map(json.loads, others)][-1] == "close"
    assert genesis["kind"] == "genesis"
    assert genesis["run_id"] == journal.run_id
    assert genesis["versions"]["qr-sampler-core"]
    assert "ledger_dir" not in genesis["settings"]
    assert (genesis["model"], genesis["settings"]["baseline_file"]) == ("tiny", "base.json")
    assert str(tmp_path) not in line


def test_each_of_several_engines_has_a_file_named_after_it(tmp_path: Path) -> None:
    settings = Settings.load(ledger_dir=tmp_path)
    for rank in range(3):
        Journal(
            settings, [ConstantEntropySource()], engine="toy", model="tiny", engine_rank=rank
        ).close()
    names = sorted(file.name.split("-")[1] for file in tmp_path.iterdir())
    assert names == ["dp0", "dp1", "dp2"]


def test_journal_without_a_directory_keeps_no_file(tmp_path: Path) -> None:
    journal = Journal(Settings.load(), [ConstantEntropySource()], engine="toy", model="tiny")
    journal.write([])
    journal.close()
    assert list(tmp_path.iterdir()) == []
