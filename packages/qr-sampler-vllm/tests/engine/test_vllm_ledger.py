# SPDX-License-Identifier: Apache-2.0
"""A ledger that is removed or moved away under a running engine is begun anew, and says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    removed = len(file.read_text().splitlines())
    file.unlink()
    # Noticed by an idle engine, too.
    wait_for(file.exists)
    wait_for(lambda: not status_document()[1]["healthy"])
    reasons = status_document()[1]["reasons"]
    emitted["moved"] = tokens("moved")
    moved = len(file.read_text().splitlines())
    ledger.rename(task["elsewhere"])
    emitted["after"] = tokens("after")
    result({"emitted": emitted, "reasons": reasons, "removed": removed, "moved": moved})
"""


def lines_of(directory: Path) -> list[dict[str, Any]]:
    (file,) = directory.glob("*.jsonl")
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


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
    assert [line["kind"] for line in moved[:2]] == ["genesis", "gap"]
    assert [line["kind"] for line in after[:2]] == ["genesis", "gap"]
    assert after[0] == moved[0]
    gaps = [(line["reason"], line["missing_lines"]) for line in (moved[1], after[1])]
    assert gaps == [("removed", removed), ("moved", result["moved"])]
    assert removed > len(emitted["removed"]) == 5
    assert tokens_of(moved) == {"moved": emitted["moved"]}
    assert tokens_of(after) == {"after": emitted["after"]}
