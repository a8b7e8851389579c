# SPDX-License-Identifier: Apache-2.0
"""Numbers that the far side has integrated: they come back as they were sent."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler import AMPLIFIERS, ConfigError, Settings, configured_sources
from qr_sampler.amplification.server import ServerAmplifier
from qr_sampler.testing import ConstantEntropySource


def amplified(number: int) -> float:
    block = np.frombuffer(number.to_bytes(8, "big"), dtype=np.uint8)[None, :]
    return float(ServerAmplifier().amplify(block).u[0])


@given(st.floats(2.0**-11, 1.0, exclude_max=True))
def test_a_number_comes_back_exactly(u: float) -> None:
    assert amplified(int(Fraction(u) * 2**64)) == u


@given(st.integers(0, 2**64 - 1))
def test_every_number_is_inside_the_open_interval_and_near(number: int) -> None:
    u = amplified(number)
    assert 0.0 < u < 1.0
    # Half a cell of the number, and half a unit in the last place of the double.
    assert abs(Fraction(u) - Fraction(2 * number + 1, 2**65)) <= Fraction(1, 2**53)
    assert number >= 2**53 or Fraction(u) == Fraction(2 * number + 1, 2**65) or u == 2.0**-53


def test_small_numbers_keep_their_order() -> None:
    us = [amplified(number) for number in (2**12, 2**20, 2**40, 2**60)]
    assert us == sorted(set(us))


@pytest.mark.parametrize("block_bytes", [7, 9, 10_240])
def test_other_blocks_are_refused(block_bytes: int) -> None:
    with pytest.raises(ConfigError, match="set sample_count to 8"):
        ServerAmplifier().resolution(block_bytes)
    assert AMPLIFIERS.load("server") is ServerAmplifier


@pytest.mark.parametrize(
    ("integrates", "amplifier", "words"),
    [
        (True, "zscore_mean", "QR_SIGNAL_AMPLIFIER_TYPE=server"),
        (False, "server", "QR_GRPC_PROFILE=qr_purity"),
        (True, "server", ""),
        (False, "zscore_mean", ""),
    ],
)
def test_source_and_amplifier_have_to_fit(
    monkeypatch: pytest.MonkeyPatch, integrates: bool, amplifier: str, words: str
) -> None:
    source: Any = ConstantEntropySource(name="device")
    source.integrates = integrates
    monkeypatch.setattr("qr_sampler.components.failure_policy.create_source", lambda name: source)
    settings = Settings(
        entropy_source_type="device",
        fallback_mode="error",
        signal_amplifier_type=amplifier,
        sample_count=8,
        max_ks_distance=1.0,
    )
    if words:
        with pytest.raises(ConfigError, match=words):
            configured_sources(settings)
    else:
        assert configured_sources(settings)["device"].integrates is integrates
