# SPDX-License-Identifier: Apache-2.0
"""The operating system's generator."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from qr_entropy_sources.system import SystemEntropySource
from qr_sampler import EntropyUnavailableError, JitClass
from qr_sampler.testing import EntropySourceContract


class TestSystemSource(EntropySourceContract):
    @pytest.fixture
    def generated(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        sizes: list[int] = []
        urandom = os.urandom

        def counting(n: int) -> bytes:
            data = urandom(n)
            sizes.append(n)
            return data

        monkeypatch.setattr(os, "urandom", counting)
        return sizes

    @pytest.fixture
    def source(self, generated: list[int]) -> SystemEntropySource:
        return SystemEntropySource()

    @pytest.fixture
    def generation_log(self, generated: list[int]) -> Callable[[], int]:
        return lambda: sum(generated)

    @pytest.fixture
    def fault(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        def broken(n: int) -> bytes:
            raise NotImplementedError("no generator on this system")

        return lambda: monkeypatch.setattr(os, "urandom", broken)


def test_system_claims_are_modest() -> None:
    assert SystemEntropySource.jit_class is JitClass.PSEUDO
    assert SystemEntropySource.conditioning == "chacha20-csprng"


def test_system_failure_keeps_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(n: int) -> bytes:
        raise OSError("descriptor table full")

    monkeypatch.setattr(os, "urandom", refused)
    with pytest.raises(EntropyUnavailableError, match=r"descriptor table full.*another source"):
        SystemEntropySource.from_environment().get_random_bytes(3)
