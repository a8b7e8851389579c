# SPDX-License-Identifier: Apache-2.0
"""Which server is probed, and how a source that draws from it is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qr_sampler.entropy import EntropySource, SourceLimits
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler.errors import ConfigError
from qr_sampler_grpc.direct.settings import DirectOptions, DirectSettings
from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.protocol.profiles import CUSTOM, DEFAULT_METHOD_PATH
from qr_sampler_grpc.settings import GrpcOptions, GrpcSettings
from qr_sampler_grpc.source import QuantumGrpcSource

__all__ = ["DIRECT", "MODES", "DirectTarget", "GrpcTarget", "ProbeTarget", "target_for"]

DIRECT: Final = "direct"
"""Names the protocol of Unix sockets where the profiles of gRPC are named."""

_NO_PLACE: Final = "cannot be sent in this protocol"

MODES: Final = ("unary", "server_streaming", "bidi_streaming")
"""The modes of gRPC."""

_DIRECT_LARGEST: Final = DirectOptions.model_fields["max_bytes_per_request"].default

# The first failure is what the probe wants to see, and one slow draw must not spoil the next.
_NO_BREAKER: Final = BreakerOptions.checked(enabled=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTarget(ABC):
    """A server with all that is configured about it."""

    address: str
    """Where it listens."""
    profile: str
    """What it speaks."""
    integrates: bool = False
    """Whether it returns uniform numbers of eight bytes instead of blocks."""
    limits: SourceLimits = field(default_factory=SourceLimits)
    """What may be asked for, by the settings and the profile."""
    largest_bytes: int | None
    """Largest single request that the settings allow; ``None`` where they leave it open."""
    without_commitment: str
    """Why no commitment is sent, or nothing where it is."""
    without_sequence_id: str = ""
    """Why answers cannot name their request, or nothing where they can."""
    public_key: Path | None
    """File with the public key of the device, if it is known."""

    @abstractmethod
    def modes(self) -> Iterator[tuple[str, str]]:
        """Yields each mode, and why it cannot be used, or nothing."""

    @abstractmethod
    def source(self, mode: str, largest_bytes: int, *, verify: bool = False) -> EntropySource:
        """Returns a source that asks for at most *largest_bytes* at once.

        Args:
            mode: The mode of its draws.
            largest_bytes: Largest single request.
            verify: Whether answers must be signed with the public key.
        """

    def largest_of(self, largest_bytes: int) -> int:
        """Returns *largest_bytes*, or what the settings allow if that is less."""
        return min(largest_bytes, self.largest_bytes or largest_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcTarget(ProbeTarget):
    """A server that speaks gRPC."""

    options: GrpcOptions
    """How to reach it; the public key is not used for draws."""
    configured: Mapping[str, Any] = field(repr=False)
    """The options as they were given or found in the environment."""

    def modes(self) -> Iterator[tuple[str, str]]:
        """Yields each mode, and why the profile does not have it, or nothing."""
        for mode in MODES:
            try:
                self.with_options(mode=mode)
            except ConfigError as error:
                yield mode, str(error)
            else:
                yield mode, ""

    def with_options(self, **changed: Any) -> GrpcOptions:
        """Returns the options with some of them changed.

        Raises:
            ConfigError: When they do not fit together.
        """
        return GrpcOptions.checked(**{**self.configured, **changed})

    def source(self, mode: str, largest_bytes: int, *, verify: bool = False) -> EntropySource:
        """Returns a source that draws in *mode*."""
        options = self.with_options(
            mode=mode,
            max_bytes_per_request=self.largest_of(largest_bytes),
            public_key=self.public_key if verify else None,
        )
        return QuantumGrpcSource(breaker=_NO_BREAKER, **options.model_dump())


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectTarget(ProbeTarget):
    """A server that speaks the direct protocol."""

    options: DirectOptions
    """How to reach it; the public key is not used for draws."""

    def modes(self) -> Iterator[tuple[str, str]]:
        """Yields the only mode."""
        yield DIRECT, ""

    def source(self, mode: str, largest_bytes: int, *, verify: bool = False) -> EntropySource:
        """Returns a source; *mode* is always the same."""
        options = self.options.model_dump()
        options["max_bytes_per_request"] = self.largest_of(largest_bytes)
        if not verify:
            options["public_key"] = ""
        return DirectSource(**options)


def target_for(address: str, profile: str = "", **options: Any) -> ProbeTarget:
    """Returns the server at *address*, described by *options* and the environment.

    Args:
        address: Where it listens.
        profile: What it speaks: a profile of gRPC, ``direct``, or empty for what the environment
            and the method path imply.
        options: Fields of :class:`~qr_sampler_grpc.settings.GrpcOptions`, of which ``direct`` takes
            *timeout_ms* and *public_key* only. They take precedence over ``QR_GRPC_*``.

    Raises:
        ConfigError: When something is malformed, or a file that is named cannot be used.
    """
    if profile == DIRECT:
        return _direct(address, options)
    if profile:
        options["profile"] = profile
    if "api_key_file" in options:
        # One of the command line replaces one of the environment.
        options["api_key"] = ""
    if any(name.startswith("tls_") for name in options):
        options["tls_enabled"] = True
    settings = GrpcSettings.load(server_address=address, mode="unary", **options)
    return _grpc(settings.model_dump())


def _grpc(configured: dict[str, Any]) -> GrpcTarget:
    options = GrpcOptions.checked(**configured)
    contract = options.contract
    return GrpcTarget(
        address=options.server_address,
        profile=_profile_of(options),
        integrates=contract.integrates,
        limits=contract.limits,
        largest_bytes=options.max_bytes_per_request,
        without_commitment=_unsent("GRPC", options.commitment) if contract.commits else _NO_PLACE,
        without_sequence_id="" if contract.names_requests else _NO_PLACE,
        public_key=options.public_key,
        options=options,
        configured=configured,
    )


def _profile_of(options: GrpcOptions) -> str:
    service = options.method_path.rpartition("/")[0]
    ours = service in ("", DEFAULT_METHOD_PATH.rpartition("/")[0])
    return options.profile or ("qr_entropy" if ours else CUSTOM)


def _unsent(protocol: str, commitment: bool) -> str:
    return "" if commitment else f"not sent: QR_{protocol}_COMMITMENT is false"


def _direct(address: str, given: dict[str, Any]) -> DirectTarget:
    chosen = {name: given.pop(name) for name in ("timeout_ms", "public_key") if name in given}
    if given:
        raise ConfigError(
            f"{', '.join(sorted(given))}: the direct protocol has no such thing; leave it out"
        )
    if "public_key" in chosen:
        chosen["public_key"] = str(chosen["public_key"])
    settings = DirectSettings.load(server_address=address, **chosen)
    options = DirectOptions.checked(**settings.model_dump())
    largest, default = options.max_bytes_per_request, _DIRECT_LARGEST
    return DirectTarget(
        address=options.server_address,
        profile=DIRECT,
        largest_bytes=None if largest == default else largest,
        without_commitment=_unsent("DIRECT", options.commitment),
        public_key=Path(options.public_key) if options.public_key else None,
        options=options,
    )
