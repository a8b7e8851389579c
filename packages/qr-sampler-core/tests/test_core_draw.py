# SPDX-License-Identifier: Apache-2.0
"""A draw cannot be changed, only copied, with its bytes or without them."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from qr_sampler import EntropyDraw, Origin

# A value of its own for each field, so that no two can be exchanged unnoticed.
DRAW = EntropyDraw(
    data=b"ab",
    source="s",
    origin=Origin("d", "1"),
    requested_ns=1,
    received_ns=2,
    wall_time_ns=3,
    fallback=True,
    fallback_from="f",
    fallback_reason="r",
    device_id="i",
    device_timestamp_ns=4,
    requests=5,
    commitment_echoed=True,
    signature_verified=False,
    dropped_bytes=6,
    signature=b"s",
    sequence_id=7,
)
FIELDS = [field.name for field in dataclasses.fields(EntropyDraw)]


@pytest.mark.parametrize("name", FIELDS)
def test_no_field_can_be_set_or_deleted(name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(DRAW, name, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(DRAW, name)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_and_copies_are_equal(protocol: int) -> None:
    assert pickle.loads(pickle.dumps(DRAW, protocol)) == DRAW
    assert copy.copy(DRAW) == copy.deepcopy(DRAW) == DRAW


def test_without_its_data_a_draw_keeps_all_else() -> None:
    assert DRAW.without_data() == dataclasses.replace(DRAW, data=b"")
