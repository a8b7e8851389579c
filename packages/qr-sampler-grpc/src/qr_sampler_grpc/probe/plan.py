# SPDX-License-Identifier: Apache-2.0
"""What a probe does, and what it may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qr_sampler.errors import ConfigError
from qr_sampler_grpc.conformance import Case, load_cases
from qr_sampler_grpc.probe.target import GrpcTarget, Target
from qr_sampler_grpc.wire import INTEGRATED_BYTES

__all__ = [
    "CONTRACT",
    "SEQUENCE_BYTES",
    "SIGNED_BYTES",
    "Plan",
    "cases_for",
    "offered_modes",
]

SIGNED_BYTES: Final = 64
"""What is drawn to see a signature."""
SEQUENCE_BYTES: Final = 1
"""What is drawn to see a sequence id."""
_MOST_DRAWN: Final = 2**28
"""All of it is kept until it has been looked at."""
CONTRACT: Final = "qr_entropy"
"""The profile that the conformance cases are about."""
_ANY_CONTRACT: Final = ("health", "reflection")
"""Cases that make sense whatever the server speaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done to find out."""

    draws: int = 50
    """Timed draws in each mode."""
    draw_bytes: int = 10_240
    """Bytes of each."""
    search_bytes: int = 2**18
    """Most bytes that the search for the largest request may cost; 0 does without."""
    thorough: bool = False
    """Whether all conformance cases are run, and not only the cheap ones."""

    def checked(self, target: Target) -> Plan:
        """Returns the plan as it suits *target*.

        Raises:
            ConfigError: When it asks for more than *target* is known to allow.
        """
        if self.thorough and target.profile != CONTRACT:
            raise ConfigError(
                f"the conformance cases are about the profile {CONTRACT!r}, not "
                f"{target.profile!r}; leave --conformance out"
            )
        limits = target.source(next(target.modes())[0], 1).limits
        quota = limits.max_requests_per_minute
        planned = (self.draws + 1) * len(offered_modes(target))
        if quota is not None and planned > quota:
            raise ConfigError(
                f"{planned} requests are more than the {quota:g} a minute that {target.address} "
                "allows; lower --draws"
            )
        if target.integrates:
            return Plan(draws=self.draws, draw_bytes=INTEGRATED_BYTES, search_bytes=0)
        if (self.draws + 1) * self.draw_bytes * len(offered_modes(target)) > _MOST_DRAWN:
            raise ConfigError(
                f"{self.draws} draws of {self.draw_bytes:,} bytes in each mode are more than "
                f"{_MOST_DRAWN:,} bytes; lower --draws or --bytes"
            )
        return self

    def most_bytes(self, target: Target) -> int:
        """Returns how many random bytes the probe will draw at most."""
        drawn = (self.draws + 1) * self.draw_bytes * len(offered_modes(target))
        cases = cases_for(target, thorough=self.thorough)
        calls = [call for case in cases for call in case.calls]
        answered = sum(answer.data_bytes or 0 for call in calls for answer in call.answers)
        return drawn + self.search_bytes + answered + SIGNED_BYTES + SEQUENCE_BYTES


def offered_modes(target: Target) -> list[str]:
    """Returns the modes that the contract of *target* has."""
    return [mode for mode, missing in target.modes() if not missing]


def cases_for(target: Target, *, thorough: bool) -> list[Case]:
    """Returns the conformance cases that suit *target*; the cheap ones unless *thorough*."""
    if not isinstance(target, GrpcTarget):
        return []
    if target.profile != CONTRACT:
        return [case for case in load_cases() if case.name in _ANY_CONTRACT]
    return [case for case in load_cases() if thorough or case.cheap]
