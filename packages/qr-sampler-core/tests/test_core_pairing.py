# SPDX-License-Identifier: Apache-2.0
"""An amplifier only meets sources that it understands, whoever chooses either of them."""

from __future__ import annotations

from typing import Any

import pytest

from qr_sampler import (
    ENTROPY_SOURCES,
    ConfigError,
    EntropySource,
    Settings,
    configured_sources,
    resolve_request,
)
from qr_sampler.components import pairing

NUMBERS = {"qr_signal_amplifier_type": "server", "qr_sample_count": 8}
BYTES = {"qr_signal_amplifier_type": "zscore_mean", "qr_sample_count": 1024}


class Bytes(EntropySource):
    name = "bytes"
    constructed = 0

    def __init__(self) -> None:
        Bytes.constructed += 1

    def get_random_bytes(self, n: int) -> bytes:
        raise AssertionError("to look at a source draws nothing")


class Numbers(Bytes):
    name = "numbers"
    integrates = True


class Broken(Bytes):
    name = "broken"

    def __init__(self) -> None:
        raise SystemExit("no device")


@pytest.fixture(autouse=True)
def _sources(install_plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"bytes": Bytes, "numbers": Numbers, "broken": Broken}
    points = "".join(f"{name} = nowhere:{kind.__name__}\n" for name, kind in names.items())
    install_plugin("pairs", f"[qr_sampler.entropy_sources]\n{points}")
    monkeypatch.setattr(ENTROPY_SOURCES, "_loaded", names)
    pairing._integrates.cache_clear()


def settings(source: str = "bytes", fallback: str = "error", **changes: Any) -> Settings:
    numbers = {"signal_amplifier_type": "server", "sample_count": 8}
    return Settings.load(
        **{
            "entropy_source_type": source,
            "fallback_mode": fallback,
            "request_entropy_sources": "bytes, numbers, broken",
            **(numbers if source == "numbers" else {}),
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("deployment", "request_keys", "reason"),
    [
        (("bytes",), {"qr_entropy_source": "numbers"}, "pass qr_signal_amplifier_type=server"),
        (("bytes",), {"qr_entropy_source": "numbers", **BYTES}, "delivers uniform numbers"),
        (("bytes",), NUMBERS, "delivers bytes, so choose another amplifier"),
        (("numbers",), BYTES, "'numbers' with qr_signal_amplifier_type='zscore_mean'"),
        (("numbers",), {"qr_entropy_source": "bytes"}, "delivers bytes"),
        (
            ("bytes",),
            {"qr_entropy_source": "broken"},
            "'broken' from pairs 1.0 cannot be loaded: SystemExit",
        ),
        (
            ("numbers", "numbers"),
            {"qr_entropy_source": "bytes", **BYTES},
            r"takes over on failure \('numbers', QR_FALLBACK_MODE\)",
        ),
    ],
)
def test_a_request_with_a_pair_that_does_not_fit_is_refused(
    deployment: tuple[str, ...], request_keys: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        resolve_request(settings(*deployment), request_keys)


@pytest.mark.parametrize(
    ("deployment", "request_keys"),
    [
        (("bytes",), {"qr_entropy_source": "numbers", **NUMBERS}),
        (("bytes",), BYTES),
        (("numbers",), {}),
        (("numbers",), {"qr_entropy_source": "bytes", **BYTES}),
        (("numbers",), {"qr_entropy_source": "numbers"}),
        (("numbers", "bytes"), NUMBERS),
        (("bytes",), {"qr_entropy_source": "numbers", "qr_bypass": 1}),
    ],
)
def test_other_pairs_are_served(deployment: tuple[str, ...], request_keys: dict[str, Any]) -> None:
    assert resolve_request(settings(*deployment), request_keys).source


def test_a_source_is_looked_at_once_and_the_configured_pair_never() -> None:
    deployment = settings()
    before = Bytes.constructed
    for _ in range(3):
        resolve_request(deployment, {"qr_top_k": 5})
    assert Bytes.constructed == before
    for _ in range(3):
        resolve_request(deployment, {"qr_entropy_source": "numbers", **NUMBERS})
    assert Bytes.constructed == before + 1


def test_a_fallback_that_delivers_numbers_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="'numbers' delivers uniform numbers, not bytes"):
        configured_sources(settings("bytes", "numbers", request_entropy_sources=""))
    # A number is made of bytes as well as of anything else.
    configured_sources(settings("numbers", "bytes", request_entropy_sources=""))
