# SPDX-License-Identifier: Apache-2.0
"""An engine with two devices of one kind: every token names the one that decided it.

Each device is a FIFO whose writer, in the process of the test, knows when it made each byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from qr_sampler.records.files import ledgers_in
from qr_sampler.testing import StampedWriter, chained_lines
from qr_sampler.testing.chain_checks import kept_blocks
from qr_sampler.testing.stamped_writer import writers_of_pipes

SIDES: Final = ("left", "right")
TOKENS: Final = 12


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[dict[str, StampedWriter]]:
    """The generators behind the FIFOs 'left' and 'right' of this test."""
    with writers_of_pipes(tmp_path, *SIDES) as found:
        yield found


def test_requests_choose_between_two_devices_of_one_kind(
    writers: dict[str, StampedWriter], offline_engine: Callable[[str], Any], tmp_path: Path
) -> None:
    file = tmp_path / "sources.toml"
    file.write_text(f'[right]\nkind = "device_file"\npath = "{tmp_path / "right"}"\n', "utf-8")
    engine = offline_engine("v2")
    wishes: dict[str, dict[str, Any]] = {
        "left": {},
        "right": {"qr_entropy_source": "right"},
        "left again": {"qr_entropy_source": "left"},
    }
    outputs, records = engine.generate(
        {
            "prompts": ["The rays of light"] * len(wishes),
            "extra_args": [{"qr_request_key": key, **wish} for key, wish in wishes.items()],
            "bad": [{"qr_entropy_source": "device_file"}],
        },
        {
            "QR_SOURCES": f"left=device_file:{tmp_path / 'left'}",
            "QR_SOURCES_FILE": str(file),
            "QR_ENTROPY_SOURCE_TYPE": "left",
            "QR_REQUEST_ENTROPY_SOURCES": "right",
            "QR_DEVICE_FILE_TIMEOUT_MS": "60000",
            "QR_DRAW_TIMEOUT_MS": "60000",
            "QR_SAMPLE_COUNT": "64",
            "QR_MAX_KS_DISTANCE": "1",
            "QR_LEDGER_BLOCKS": "true",
        },
    )
    (ledger,) = ledgers_in(engine.ledger)
    lines = list(chained_lines(ledger))
    assert {one["name"]: one["kind"] for one in lines[0]["sources"]} == dict.fromkeys(
        SIDES, "device_file"
    )
    for key, output in zip(wishes, outputs, strict=True):
        mine = [one for one in records if one["kind"] == "token" and one["request_key"] == key]
        assert [one["token_id"] for one in mine] == output["token_ids"]
        assert {one["source"] for one in mine} == {key.split()[0]}
    blocks = kept_blocks(ledger)
    draws = [line for line in lines if line["kind"] == "draw"]
    assert len(draws) >= len(SIDES) * TOKENS
    for draw in draws:
        # Bytes that its own writer has never written raise.
        stale = writers[draw["source"]].stale_bytes(blocks[draw["draw"]], draw["t_request_ns"])
        assert stale == 0
