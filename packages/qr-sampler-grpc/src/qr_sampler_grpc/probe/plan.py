# SPDX-License-Identifier: Apache-2.0
"""What a probe does, and what it may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from qr_sampler.errors import ConfigError
from qr_sampler_grpc.conformance import Case, load_cases
from qr_sampler_grpc.probe.size_limit import MOST_SEARCHED
from qr_sampler_grpc.probe.target import GrpcTarget, ProbeTarget
from qr_sampler_grpc.protocol.wire import INTEGRATED_BYTES

__all__ = [
    "CONTRACT",
    "SEQUENCE_BYTES",
    "SIGNED_BYTES",
    "Plan",
    "cases_for",
    "offered_modes",
]

SIGNED_BYTES: Final = 64
"""Bytes that are drawn to see a signature."""
SEQUENCE_BYTES: Final = 1
"""Bytes that are drawn to see a sequence id."""
_MOST_DRAWN: Final = 2**28
"""All of it is kept until it has been looked at."""
CONTRACT: Final = "qr_entropy"
"""The profile that the conformance cases are about."""
_ANY_CONTRACT: Final = ("health", "reflection")
"""Cases that apply whatever the server speaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of a probe."""

    draws: int = 50
    """Timed draws in each mode."""
    draw_bytes: int = 10_240
    """Bytes of each."""
    search_bytes: int = 2**18
    """Most bytes that the search for the largest request may cost; 0 skips it."""
    thorough: bool = False
    """Whether all conformance cases are run, and not only the cheap ones."""

    def checked(self, target: ProbeTarget) -> Plan:
        """Returns the plan as it suits *target*.

        Raises:
            ConfigError: When it asks for more than *target* allows in a day, or than fits into the
                memory.
        """
        if self.thorough and target.profile != CONTRACT:
            raise ConfigError(
                f"the conformance cases are about the profile {CONTRACT!r}, not "
                f"{target.profile!r}; leave --conformance out"
            )
        if target.integrates:
            return Plan(draws=self.draws, draw_bytes=INTEGRATED_BYTES, search_bytes=0)
        # A largest request given in the settings need not be searched for.
        plan = self if target.largest_bytes is None else replace(self, search_bytes=0)
        daily = target.limits.max_bytes_per_day
        if daily is not None and plan.most_bytes(target) > daily:
            raise ConfigError(
                f"{plan.most_bytes(target):,} bytes are more than the {daily:,} a day that "
                f"{target.address} allows; lower --draws, --bytes or --max-bytes"
            )
        if (self.draws + 1) * self.draw_bytes * len(offered_modes(target)) > _MOST_DRAWN:
            raise ConfigError(
                f"{self.draws} draws of {self.draw_bytes:,} bytes in each mode are more than "
                f"{_MOST_DRAWN:,} bytes; lower --draws or --bytes"
            )
        return plan

    def most_bytes(self, target: ProbeTarget) -> int:
        """Returns how many random bytes the probe will draw at most."""
        drawn = (self.draws + 1) * self.draw_bytes * len(offered_modes(target))
        answered = sum(case.data_bytes for case in cases_for(target, thorough=self.thorough))
        return drawn + self.search_bytes + answered + SIGNED_BYTES + SEQUENCE_BYTES

    def most_requests(self, target: ProbeTarget) -> int:
        """Returns how many requests the probe will make at most."""
        largest = target.limits.max_bytes_per_request or self.draw_bytes
        each = math.ceil(self.draw_bytes / largest) if target.largest_bytes is not None else 1
        drawn = (self.draws + 1) * each * len(offered_modes(target))
        cases = sum(case.requests for case in cases_for(target, thorough=self.thorough))
        searched = MOST_SEARCHED if self.search_bytes else 0
        # The last two are for the signature and the sequence id.
        return drawn + searched + cases + 2

    def least_minutes(self, target: ProbeTarget) -> int:
        """Returns how many whole minutes the quota of the settings makes of that, at least."""
        quota = target.limits.max_requests_per_minute
        planned = self.most_requests(target) - (MOST_SEARCHED if self.search_bytes else 0)
        return 0 if quota is None else math.ceil(planned / quota) - 1


def offered_modes(target: ProbeTarget) -> list[str]:
    """Returns the modes that the contract of *target* has."""
    return [mode for mode, missing in target.modes() if not missing]


def cases_for(target: ProbeTarget, *, thorough: bool) -> list[Case]:
    """Returns the conformance cases that suit *target*; the cheap ones unless *thorough*."""
    if not isinstance(target, GrpcTarget):
        return []
    if target.profile != CONTRACT:
        return [case for case in load_cases() if case.name in _ANY_CONTRACT]
    return [case for case in load_cases() if thorough or case.cheap]
