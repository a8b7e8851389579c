# SPDX-License-Identifier: Apache-2.0
"""A draw is the frozen dataclass that its fields describe, with a constructor of its own."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from typing import Any

import pytest

from qr_sampler import EntropyDraw, Origin

NEEDED: dict[str, Any] = {
    "data": b"ab",
    "source": "s",
    "requested_ns": 1,
    "received_ns": 2,
    "wall_time_ns": 3,
}
# A value of its own for each field, so that no two can be exchanged unnoticed.
EVERYTHING: dict[str, Any] = NEEDED | {
    "origin": Origin("d", "1"),
    "fallback": True,
    "fallback_reason": "r",
    "device_id": "i",
    "device_timestamp_ns": 4,
    "requests": 5,
    "commitment_echoed": True,
    "signature_verified": False,
    "dropped_bytes": 6,
}


def test_the_constructor_is_the_one_that_the_fields_describe() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Generated(EntropyDraw):
        """Has the constructor that a dataclass makes of the same fields."""

    written = inspect.signature(EntropyDraw.__init__).parameters
    generated = inspect.signature(Generated.__init__).parameters
    assert list(written) == list(generated)
    for name in written:
        assert written[name].default == generated[name].default
        assert written[name].kind is generated[name].kind
        assert written[name].annotation == generated[name].annotation


def test_every_field_is_kept() -> None:
    assert set(EVERYTHING) == {field.name for field in dataclasses.fields(EntropyDraw)}
    assert dataclasses.asdict(EntropyDraw(**EVERYTHING)) == EVERYTHING | {
        "origin": {"distribution": "d", "version": "1"}
    }


@pytest.mark.parametrize("name", EVERYTHING)
def test_draws_that_differ_in_one_field_differ(name: str) -> None:
    draw, same = EntropyDraw(**NEEDED), EntropyDraw(**NEEDED)
    other = dataclasses.replace(draw, **{name: "another"})
    assert draw == same
    assert hash(draw) == hash(same)
    assert other != draw
    assert getattr(other, name) == "another"


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_needed_has_no_default(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        EntropyDraw(**{key: value for key, value in NEEDED.items() if key != name})


def test_nothing_else_is_taken() -> None:
    with pytest.raises(TypeError, match="colour"):
        EntropyDraw(**NEEDED, colour="red")
    with pytest.raises(TypeError, match="positional"):
        EntropyDraw(b"ab")  # type: ignore[call-arg, misc]


@pytest.mark.parametrize("name", EVERYTHING)
def test_no_field_can_be_set_or_deleted(name: str) -> None:
    draw = EntropyDraw(**EVERYTHING)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(draw, name, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(draw, name)
    assert draw == EntropyDraw(**EVERYTHING)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_and_copies_are_equal(protocol: int) -> None:
    draw = EntropyDraw(**EVERYTHING)
    assert pickle.loads(pickle.dumps(draw, protocol)) == draw
    assert copy.copy(draw) == copy.deepcopy(draw) == draw


def test_the_text_names_the_fields() -> None:
    assert repr(EntropyDraw(**NEEDED)).startswith("EntropyDraw(data=b'ab', source='s', origin=")
