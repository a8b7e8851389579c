# SPDX-License-Identifier: Apache-2.0
"""Uniforms by role: where they come from, that each is counted, and that recordings replay."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler import EntropyUnavailableError
from qr_sampler.testing import ConstantEntropySource, RecordedEntropySource
from qr_sampler_tsd import (
    EntropyUniforms,
    RecordedUniforms,
    RecordingUniforms,
    Role,
    SeededUniforms,
    UniformDraw,
    UniformsExhaustedError,
)


@given(st.binary(min_size=8, max_size=200))
def test_bytes_become_the_numbers_that_the_source_itself_makes(data: bytes) -> None:
    count = len(data) // 8
    ours = EntropyUniforms(RecordedEntropySource(data)).draw(count, Role.ACCEPT)
    theirs = RecordedEntropySource(data).get_random_float64((count,))
    np.testing.assert_array_equal(ours, theirs)
    words = [int.from_bytes(data[8 * i : 8 * i + 8], "little") for i in range(count)]
    assert ours.tolist() == [(word >> 11) / 2**53 for word in words]


def test_the_interval_is_closed_below_and_open_above() -> None:
    assert EntropyUniforms(ConstantEntropySource(0)).draw_one(Role.BONUS) == 0.0
    assert EntropyUniforms(ConstantEntropySource(255)).draw_one(Role.BONUS) == 1 - 2.0**-53


def test_each_call_is_one_request_and_none_is_none() -> None:
    source = ConstantEntropySource()
    uniforms = EntropyUniforms(source)
    uniforms.draw(5, Role.PROPOSAL)
    uniforms.draw(0, Role.ACCEPT)
    uniforms.draw_one(Role.ACCEPT)
    assert source.requests == [40, 8]


def test_roles_are_counted() -> None:
    uniforms = SeededUniforms(1)
    for n, role in [(3, Role.PROPOSAL), (1, Role.ACCEPT), (2, Role.PROPOSAL), (1, Role.RESIDUAL)]:
        assert uniforms.draw(n, role).shape == (n,)
    uniforms.draw_one(Role.ACCEPT)
    assert uniforms.drawn == {Role.PROPOSAL: 5, Role.ACCEPT: 2, Role.RESIDUAL: 1}


def test_what_is_not_delivered_is_not_counted() -> None:
    uniforms = EntropyUniforms(ConstantEntropySource(fail_with="unplugged"))
    with pytest.raises(EntropyUnavailableError, match="unplugged"):
        uniforms.draw(1, Role.PROPOSAL)
    assert not uniforms.drawn


def test_draws_are_observed_with_their_provenance() -> None:
    seen: list[UniformDraw] = []
    uniforms = EntropyUniforms(ConstantEntropySource(7, name="device"), seen.append)
    values = uniforms.draw(2, Role.RESIDUAL)
    (draw,) = seen
    assert draw.role is Role.RESIDUAL
    assert draw.values.tolist() == values.tolist()
    assert draw.draw is not None
    assert draw.draw.data == bytes([7]) * 16
    assert draw.draw.source == "device"


def test_seeded_roles_have_streams_of_their_own() -> None:
    one, two = SeededUniforms(9), SeededUniforms(9)
    proposals = one.draw(4, Role.PROPOSAL)
    accepts = one.draw(4, Role.ACCEPT)
    assert two.draw(4, Role.ACCEPT).tolist() == accepts.tolist()
    assert two.draw(4, Role.PROPOSAL).tolist() == proposals.tolist()
    assert not set(proposals) & set(accepts)
    assert SeededUniforms(10).draw(4, Role.PROPOSAL).tolist() != proposals.tolist()


def test_a_recording_replays_what_was_drawn() -> None:
    recording = RecordingUniforms(SeededUniforms(2))
    calls = [(3, Role.PROPOSAL), (1, Role.ACCEPT), (0, Role.ACCEPT), (2, Role.RESIDUAL)]
    drawn = [recording.draw(n, role).tolist() for n, role in calls]
    replay = RecordedUniforms(recording.draws)
    assert [replay.draw(n, role).tolist() for n, role in calls] == drawn
    assert replay.drawn == recording.drawn


def test_a_recording_ends() -> None:
    replay = RecordedUniforms([UniformDraw(Role.ACCEPT, np.array([0.5]), None)])
    replay.draw_one(Role.ACCEPT)
    with pytest.raises(UniformsExhaustedError, match="no more uniforms; 2 are wanted") as caught:
        replay.draw(2, Role.ACCEPT)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert replay.drawn == {Role.ACCEPT: 1}


@pytest.mark.parametrize(("n", "role"), [(2, Role.BONUS), (1, Role.ACCEPT), (3, Role.ACCEPT)])
def test_a_recording_serves_only_what_was_asked_for(n: int, role: Role) -> None:
    replay = RecordedUniforms([UniformDraw(Role.ACCEPT, np.array([0.5, 0.25]), None)])
    message = rf"goes on with 2 uniforms for accept, but {n} for {role.value} are wanted"
    with pytest.raises(UniformsExhaustedError, match=message):
        replay.draw(n, role)


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="n=-1 must not be negative"):
        SeededUniforms(0).draw(-1, Role.ACCEPT)
