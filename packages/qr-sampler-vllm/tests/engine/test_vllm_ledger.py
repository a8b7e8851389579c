# SPDX-License-Identifier: Apache-2.0
"""A ledger that is removed or moved away under a running engine is begun anew, and says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qr_sampler.records.reader import read_ledger
from qr_sampler.testing import chained_lines

SCRIPT = """
    from pathlib import Path
    from vllm import SamplingParams
    from qr_sampler_vllm import flush_records
    from qr_sampler_vllm.status.endpoint import status_document

    ledger = Path(task["ledger"])
    llm = engine()

    def tokens(key):
        params = SamplingParams(max_tokens=5, ignore_eos=True, extra_args={"qr_request_key": key})
        (output,) = llm.generate(["Light is"], params, use_tqdm=False)
        flush_records()
        return list(output.outputs[0].token_ids)

    def wait_for(condition):
        for _ in range(600):
            if condition():
                return
            time.sleep(0.1)
        raise SystemExit("nothing has happened within a minute")

    emitted = {"removed": tokens("removed")}
    (file,) = ledger.glob("*.jsonl")
    removed = file.read_bytes().count(b"\\n")
    file.unlink()
    # Noticed by an idle engine, too.
    wait_for(lambda: list(ledger.glob("*.jsonl")))
    (second,) = ledger.glob("*.jsonl")
    wait_for(lambda: not status_document()[1]["healthy"])
    reasons = status_document()[1]["reasons"]
    emitted["moved"] = tokens("moved")
    moved = second.read_bytes().count(b"\\n")
    ledger.rename(task["elsewhere"])
    emitted["after"] = tokens("after")
    found = {"names": [file.name, second.name], "removed": removed, "moved": moved}
    result({**found, "emitted": emitted, "reasons": reasons})
"""


def lines_of(directory: Path) -> list[dict[str, Any]]:
    (file,) = directory.glob("*.jsonl")
    assert chained_lines(file)
    return list(read_ledger(file))


def tokens_of(lines: list[dict[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for line in lines:
        if line["kind"] == "token":
            found.setdefault(line["request_key"], []).append(line["token_id"])
    return found


def test_a_ledger_that_goes_is_missed_at_once(
    offline_engine: Callable[[str], Any], tmp_path: Path
) -> None:
    engine = offline_engine("v1")
    elsewhere = tmp_path / "elsewhere"
    task = {"ledger": str(engine.ledger), "elsewhere": str(elsewhere)}
    result = engine.result(SCRIPT, task)
    emitted, removed = result["emitted"], result["removed"]
    (reason,) = result["reasons"]
    assert (
        reason == f"engine 0: {removed} records could not be written, or have gone with their file"
    )
    moved, after = lines_of(elsewhere), lines_of(engine.ledger)
    for lines, name in zip((moved, after), result["names"], strict=True):
        assert [line["kind"] for line in lines[:3]] == ["genesis", "clock", "gap"]
        assert lines[0]["continues"]["file"] == name
    gaps = [(line["reason"], sum(line["missing"].values())) for line in (moved[2], after[2])]
    assert gaps == [("removed", removed), ("moved", result["moved"])]
    assert {line["run_id"] for line in (moved[0], after[0])} == {moved[0]["run_id"]}
    assert removed > len(emitted["removed"]) == 5
    assert tokens_of(moved) == {"moved": emitted["moved"]}
    assert tokens_of(after) == {"after": emitted["after"]}
