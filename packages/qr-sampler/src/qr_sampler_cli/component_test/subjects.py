# SPDX-License-Identifier: Apache-2.0
"""The contracts of an installed component; pytest collects this file in a process of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import ClassVar

import pytest

from qr_sampler import EntropySource, JitClass, SignalAmplifier, TemperatureStrategy, create_source
from qr_sampler.components.amplifiers import AMPLIFIERS
from qr_sampler.components.strategies import TEMPERATURE_STRATEGIES
from qr_sampler.errors import ConfigError
from qr_sampler.settings import Settings
from qr_sampler.testing import (
    AmplifierContract,
    EntropySourceContract,
    TemperatureStrategyContract,
)
from qr_sampler_cli.component_test.plan import BURSTS
from qr_sampler_cli.component_test.subject import Subject

__all__ = ["TestAmplifier", "TestSource", "TestStrategy"]

FORK = "test_a_fork_gets_bytes_of_its_own"
SAMPLING = "test_output_is_not_grossly_defective"
SAMPLE_BYTES = 4_096
"""Bytes that this clause draws at once."""
USUAL_REQUESTS = 12
"""Most requests of a clause that is no burst."""


class TestSource(EntropySourceContract):
    """The source as it is configured here."""

    not_applicable: ClassVar[dict[str, str]] = {FORK: "it is run for what is no control"}

    @pytest.fixture
    def source(self, subject: Subject) -> Iterator[EntropySource]:
        """The source, closed again after the check."""
        source = create_source(subject.name)
        # Bytes that are chosen have no law to be tested for.
        chosen = source.min_entropy_per_byte == 0.0
        vars(self).update(constant=chosen, uniform=not chosen)
        yield source
        source.close()

    @pytest.fixture(autouse=True)
    def _pace(
        self, subject: Subject, request: pytest.FixtureRequest, source: EntropySource
    ) -> None:
        """Leaves out what the quota does not allow, and waits for what it does."""
        clause = request.function.__name__
        if clause in subject.skipped_clauses:
            pytest.skip("it asks faster than the quota of requests allows")
        requests = BURSTS.get(clause, USUAL_REQUESTS)
        if clause == SAMPLING:
            largest = source.limits.max_bytes_per_request or SAMPLE_BYTES
            requests = max(requests, math.ceil(SAMPLE_BYTES / largest))
        time.sleep(subject.interval_s * requests)

    def test_a_fork_gets_bytes_of_its_own(self, source: EntropySource) -> None:
        """As in the contract; a control may be the same in every process."""
        if source.jit_class is JitClass.PSEUDO:
            pytest.skip("a pseudo-random control may be the same in every process")
        super().test_a_fork_gets_bytes_of_its_own(source)


class TestAmplifier(AmplifierContract):
    """The amplifier as it is configured here, on blocks of a length that it takes."""

    @pytest.fixture
    def amplifier(self, subject: Subject) -> SignalAmplifier:
        """The amplifier."""
        settings = Settings.load()
        amplifier = AMPLIFIERS.load(subject.name).from_settings(settings)
        vars(self).update(block_bytes=_accepted(amplifier, (64, settings.sample_count, 8)))
        return amplifier


class TestStrategy(TemperatureStrategyContract):
    """The strategy as it is configured here."""

    @pytest.fixture
    def strategy(self, subject: Subject) -> TemperatureStrategy:
        """The strategy."""
        return TEMPERATURE_STRATEGIES.load(subject.name).from_environment()


def _accepted(amplifier: SignalAmplifier, lengths: tuple[int, ...]) -> int:
    for length in lengths:
        try:
            amplifier.check_block(length)
        except ConfigError:
            continue
        return length
    pytest.fail(f"it refuses blocks of {', '.join(map(str, lengths))} bytes; set QR_SAMPLE_COUNT")
