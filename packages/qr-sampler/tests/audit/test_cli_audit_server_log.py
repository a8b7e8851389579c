# SPDX-License-Identifier: Apache-2.0
"""Every answer of a log is found, whatever its digest ends with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from qr_sampler_cli.audit.rungs.server_log import ServerLog


def test_every_answer_is_found(tmp_path: Path) -> None:
    path, prev = tmp_path / "witness.jsonl", "0" * 64
    answers: list[dict[str, Any]] = []
    with path.open("wb") as file:
        for n in range(2000):
            told: dict[str, Any] = {"kind": "answer" if n else "witness", "n": n, "prev": prev}
            if n:
                digest = hashlib.sha256(str(n).encode()).hexdigest()
                answers.append(
                    {
                        "sequence_id": n,
                        "commitment": "",
                        "data_sha256": digest,
                        "device_id": "d",
                        "generation_timestamp_ns": n,
                    }
                )
                told.update(answers[-1])
            line = json.dumps(told).encode()
            prev = hashlib.sha256(line).hexdigest()
            file.write(line + b"\n")
    log = ServerLog(path)
    assert len(log) == len(answers)
    for place, answer in enumerate(answers):
        draw: Any = SimpleNamespace(**answer, device_timestamp_ns=answer["generation_timestamp_ns"])
        assert log.find(draw) == place
        draw.sequence_id = None
        assert log.find(draw) == place
        draw.sequence_id = -1
        assert log.find(draw) is None
