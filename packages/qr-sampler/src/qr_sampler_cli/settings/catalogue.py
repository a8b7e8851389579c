# SPDX-License-Identifier: Apache-2.0
"""The settings models of all packages, by module and name."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Final, NamedTuple

from qr_sampler_cli.settings.reference import SettingsGroup

__all__ = ["CATALOGUE", "Entry", "absent_packages", "installed_groups"]


class Entry(NamedTuple):
    """One model of settings, which may not be installed."""

    title: str
    """What it configures."""
    package: str
    """The distribution that has it."""
    module: str
    """The module that has it."""
    model: str
    """Its name there."""
    text: str
    """When it matters."""


CATALOGUE: Final = (
    Entry(
        "Sampling, records and failures",
        "qr-sampler-core",
        "qr_sampler.settings.models",
        "Settings",
        "What every deployment has.",
    ),
    Entry(
        "Sources with names of their own",
        "qr-sampler-core",
        "qr_sampler.settings.source_declarations",
        "SourceDeclarations",
        "For [several sources of one kind](devices.md#several-sources-of-one-kind).",
    ),
    Entry(
        "An entropy server over gRPC",
        "qr-sampler-grpc",
        "qr_sampler_grpc.settings",
        "GrpcSettings",
        "For `QR_ENTROPY_SOURCE_TYPE=quantum_grpc`.",
    ),
    Entry(
        "An entropy server on the same machine",
        "qr-sampler-grpc",
        "qr_sampler_grpc.direct.settings",
        "DirectSettings",
        "For `QR_ENTROPY_SOURCE_TYPE=direct`.",
    ),
    Entry(
        "Deadlines and the circuit breaker",
        "qr-sampler-core",
        "qr_sampler.entropy.breaker_settings",
        "BreakerSettings",
        "For every source that can block: `quantum_grpc`, `direct`, `device_file` and so on.",
    ),
    Entry(
        "A device file",
        "qr-entropy-sources",
        "qr_entropy_sources.device_file",
        "DeviceFileSettings",
        "For `QR_ENTROPY_SOURCE_TYPE=device_file`.",
    ),
    Entry(
        "Timing noise",
        "qr-entropy-sources",
        "qr_entropy_sources.timing_noise",
        "TimingNoiseSettings",
        "For `QR_ENTROPY_SOURCE_TYPE=timing_noise`.",
    ),
    Entry(
        "Timing jitter by libjitterentropy",
        "qr-entropy-sources",
        "qr_entropy_sources.jitter.source",
        "JitterEntropySettings",
        "For `QR_ENTROPY_SOURCE_TYPE=jitterentropy`.",
    ),
    Entry(
        "The control that can be computed again",
        "qr-entropy-sources",
        "qr_entropy_sources.prng",
        "PrngSettings",
        "For `QR_ENTROPY_SOURCE_TYPE=prng`.",
    ),
    Entry(
        "The simulated source",
        "qr-entropy-sources",
        "qr_entropy_sources.mock_uniform",
        "MockUniformSettings",
        "For `QR_ENTROPY_SOURCE_TYPE=mock_uniform`.",
    ),
    Entry(
        "The sham source",
        "qr-entropy-sources",
        "qr_entropy_sources.sham",
        "ShamSettings",
        "For `QR_ENTROPY_SOURCE_TYPE=sham`.",
    ),
    Entry(
        "Services over HTTP",
        "qr-entropy-http",
        "qr_entropy_http.settings",
        "HttpSettings",
        "For `QR_ENTROPY_SOURCE_TYPE=http`.",
    ),
    Entry(
        "A generator behind a serial port",
        "qr-entropy-serial",
        "qr_entropy_serial.settings",
        "SerialSettings",
        "For `QR_ENTROPY_SOURCE_TYPE=serial`.",
    ),
    Entry(
        "A quantum generator of Crypta Labs",
        "qr-entropy-cryptalabs",
        "qr_entropy_cryptalabs.settings",
        "CryptaLabsSettings",
        "For `QR_ENTROPY_SOURCE_TYPE=cryptalabs`.",
    ),
    Entry(
        "The replay of a recorded run",
        "qr-sampler-lab",
        "qr_sampler_lab.replay.source",
        "ReplaySettings",
        "For `QR_ENTROPY_SOURCE_TYPE=replay`.",
    ),
    Entry(
        "Thermodynamic speculative decoding",
        "qr-sampler-vllm",
        "qr_sampler_vllm.tsd.settings",
        "TSDSettings",
        "For the worker described in [TSD in vLLM](tsd/vllm.md).",
    ),
)
"""Every model of settings of the project, in the order of the reference."""


def installed_groups() -> Iterator[SettingsGroup]:
    """Yields the settings of the packages that are installed."""
    for entry in CATALOGUE:
        if _installed(entry):
            yield SettingsGroup(
                title=entry.title,
                package=entry.package,
                text=entry.text,
                model=getattr(import_module(entry.module), entry.model),
            )


def absent_packages() -> list[str]:
    """Returns the distributions whose settings cannot be shown, because they are not installed."""
    return sorted({entry.package for entry in CATALOGUE if not _installed(entry)})


def _installed(entry: Entry) -> bool:
    return find_spec(entry.module.partition(".")[0]) is not None
