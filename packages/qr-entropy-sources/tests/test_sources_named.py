# SPDX-License-Identifier: Apache-2.0
"""Two devices of one kind under names of their own, behind a host: whose bytes decide which token.

Each device is a FIFO whose writer knows when it made each byte, and never stops.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from qr_sampler import Settings, create_source
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.records.files import ledgers_in
from qr_sampler.testing import StampedWriter, ToyHost, chained_lines
from qr_sampler.testing.chain_checks import kept_blocks
from qr_sampler.testing.stamped_writer import writers_of_pipes

SIDES: Final = ("left", "right")
DRAW_BYTES: Final = 64


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[dict[str, StampedWriter]]:
    """The generators behind the FIFOs 'left' and 'right' of this test."""
    with writers_of_pipes(tmp_path, *SIDES) as found:
        yield found


def test_requests_choose_between_two_devices_of_one_kind(
    writers: dict[str, StampedWriter], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = ",".join(f"{side}=device_file:{tmp_path / side}" for side in SIDES)
    monkeypatch.setenv("QR_SOURCES", places)
    monkeypatch.setenv("QR_DEVICE_FILE_TIMEOUT_MS", "60000")
    settings = Settings.load(
        entropy_source_type="left",
        request_entropy_sources="right",
        fallback_mode="end_request",
        draw_timeout_ms=60_000,
        sample_count=DRAW_BYTES,
        max_ks_distance=1.0,
        ledger_dir=tmp_path / "ledger",
        ledger_blocks=True,
    )
    session = SamplingSession(EngineFacts(engine="toy", model="none"), settings)
    host = ToyHost(session)
    host.add(4, request_key="of left")
    host.add(4, request_key="of right", entropy_source="right")
    for _ in range(4):
        host.step()
        for writer in writers.values():
            writer.await_bytes(500)
    session.close()

    (ledger,) = ledgers_in(tmp_path / "ledger")
    lines = list(chained_lines(ledger))
    described = {one["name"]: one for one in lines[0]["sources"]}
    assert {name: one["kind"] for name, one in described.items()} == dict.fromkeys(
        SIDES, "device_file"
    )
    assert [described[side]["settings"]["path"] for side in SIDES] == [
        str(tmp_path / side) for side in SIDES
    ]
    draws = [line for line in lines if line["kind"] == "draw"]
    blocks = kept_blocks(ledger)
    assert {draw["source"] for draw in draws} == set(SIDES)
    for draw in draws:
        # Bytes that its own writer has never written raise.
        stale = writers[draw["source"]].stale_bytes(blocks[draw["draw"]], draw["t_request_ns"])
        assert stale == 0
    asked: Any = {line["sequence"]: line for line in lines if line["kind"] == "sequence"}
    tokens = [line for line in lines if line["kind"] == "token"]
    assert len(tokens) == 8
    numbers = {draw["draw"]: draw["source"] for draw in draws}
    for token in tokens:
        key = asked[token["sequence"]]["request_key"]
        assert key == f"of {numbers[token['draw']]}"


def test_instances_of_one_device_share_its_lock(
    writers: dict[str, StampedWriter], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "left")
    places = f"one=device_file:{tmp_path / 'left'},two=device_file:{tmp_path / 'link'}"
    monkeypatch.setenv("QR_SOURCES", places)
    one, two = create_source("one"), create_source("two")
    one_lock: Any = one
    two_lock: Any = two
    assert one_lock._lock() is two_lock._lock()
    requested_ns = time.monotonic_ns()
    first, second = one.draw(DRAW_BYTES), two.draw(DRAW_BYTES)
    assert writers["left"].stale_bytes(first.data, requested_ns) == 0
    assert writers["left"].stale_bytes(second.data, first.received_ns) == 0
    one.close()
    two.close()


def test_the_remedy_names_the_setting_of_the_instance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QR_SOURCES", f"left=device_file:{tmp_path / 'absent'}")
    assert create_source("left").status().reason.endswith("set path of left or QR_DEVICE_FILE_PATH")
    monkeypatch.setenv("QR_DEVICE_FILE_PATH", str(tmp_path / "absent"))
    assert create_source("device_file").status().reason.endswith("or set QR_DEVICE_FILE_PATH")
