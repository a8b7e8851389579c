# SPDX-License-Identifier: Apache-2.0
"""Notes on devices hold what a table can print."""

from __future__ import annotations

from typing import Any

import pytest

from qr_sampler.entropy import EntropySource, JitClass
from qr_sampler.entropy.device_notes import BLOCK_SIZES, DeviceNote, transfer_ms


def note(**changes: Any) -> DeviceNote:
    values: dict[str, Any] = {
        "device": "Lamp 3",
        "reached_by": "USB",
        "rate_bytes_per_s": 50_000.0,
        "ms_per_token": transfer_ms(50_000.0),
        "jit_class": JitClass.FLUSHED,
        "conditioning": "none",
        "basis": "vendor",
    }
    return DeviceNote(**(values | changes))


def test_times_are_those_of_the_published_table() -> None:
    # A TrueRNG v3 delivers about 400 kbit/s: 20 ms for 1 KiB by the vendors' figures.
    assert round(transfer_ms(400_000 / 8)[1024]) == 20
    assert tuple(transfer_ms(1.0)) == BLOCK_SIZES


def test_a_note_may_know_neither_rate_nor_time() -> None:
    assert note(rate_bytes_per_s=None, ms_per_token={}).rate_bytes_per_s is None


@pytest.mark.parametrize(
    "changes",
    [
        {"device": " "},
        {"basis": ""},
        {"rate_bytes_per_s": 0.0},
        {"ms_per_token": {64: -1.0}},
        {"ms_per_token": {0: 1.0}},
    ],
)
def test_what_no_device_has_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must (not be empty|be positive)"):
        note(**changes)


def test_sources_have_no_notes_unless_they_say_so() -> None:
    assert EntropySource.device_notes == ()
    assert EntropySource.native_block_bytes is None
