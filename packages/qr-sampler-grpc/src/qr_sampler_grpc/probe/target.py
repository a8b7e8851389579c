# SPDX-License-Identifier: Apache-2.0
"""Which server is probed, and how a source that draws from it is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

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

# The first failure is what the probe wants to see, and one slow draw must not spoil the next.
_NO_BREAKER: Final = BreakerOptions.checked(enabled=False)


class ProbeTarget(Protocol):
    """A server with all that is configured about it."""

    @property
    def address(self) -> str:
        """Where it listens."""
        ...

    @property
    def profile(self) -> str:
        """What it speaks."""
        ...

    @property
    def integrates(self) -> bool:
        """Whether it returns uniform numbers of eight bytes instead of blocks."""
        ...

    @property
    def limits(self) -> SourceLimits:
        """What may be asked for, by the settings and the profile."""
        ...

    @property
    def largest_bytes(self) -> int | None:
        """Largest single request that the settings allow; ``None`` where they leave it open."""
        ...

    @property
    def without_commitment(self) -> str:
        """Why no commitment is sent, or nothing where it is."""
        ...

    @property
    def without_sequence_id(self) -> str:
        """Why answers cannot name their request, or nothing where they can."""
        ...

    def modes(self) -> Iterator[tuple[str, str]]:
        """Yields each mode, and why it cannot be used, or nothing."""
        ...

    @property
    def public_key(self) -> Path | None:
        """File with the public key of the device, if it is known."""
        ...

    def source(self, mode: str, largest_bytes: int, *, verify: bool = False) -> EntropySource:
        """Returns a source that asks for at most *largest_bytes* at once.

        Args:
            mode: The mode of its draws.
            largest_bytes: Largest single request.
            verify: Whether answers must be signed with the public key.
        """
        ...


@dataclass(frozen=True, slots=True)
class GrpcTarget:
    """A server that speaks gRPC."""

    options: GrpcOptions
    """How to reach it; the public key is not used for draws."""
    configured: Mapping[str, Any] = field(repr=False)
    """The options as they were given or found in the environment."""

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.options.server_address

    @property
    def profile(self) -> str:
        """What it speaks."""
        service = self.options.method_path.rpartition("/")[0]
        ours = service in ("", DEFAULT_METHOD_PATH.rpartition("/")[0])
        return self.options.profile or ("qr_entropy" if ours else CUSTOM)

    @property
    def integrates(self) -> bool:
        """Whether it returns uniform numbers."""
        return self.options.contract.integrates

    @property
    def limits(self) -> SourceLimits:
        """What may be asked for, by the settings and the profile."""
        return self.options.contract.limits

    @property
    def largest_bytes(self) -> int | None:
        """What ``QR_GRPC_MAX_BYTES_PER_REQUEST`` says."""
        return self.options.max_bytes_per_request

    @property
    def without_commitment(self) -> str:
        """Why no commitment is sent, or nothing where it is."""
        if not self.options.contract.commits:
            return _NO_PLACE
        return "" if self.options.commitment else "not sent: QR_GRPC_COMMITMENT is false"

    @property
    def without_sequence_id(self) -> str:
        """Why answers cannot name their request, or nothing where they can."""
        return "" if self.options.contract.names_requests else _NO_PLACE

    def modes(self) -> Iterator[tuple[str, str]]:
        """Yields each mode, and why the profile has it not, or nothing."""
        for mode in MODES:
            try:
                self.with_options(mode=mode)
            except ConfigError as error:
                yield mode, str(error)
            else:
                yield mode, ""

    @property
    def public_key(self) -> Path | None:
        """File with the public key of the device, if it is known."""
        return self.options.public_key

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
            max_bytes_per_request=min(largest_bytes, self.largest_bytes or largest_bytes),
            public_key=self.public_key if verify else None,
        )
        return QuantumGrpcSource(breaker=_NO_BREAKER, **options.model_dump())


@dataclass(frozen=True, slots=True)
class DirectTarget:
    """A server that speaks the direct protocol."""

    options: DirectOptions
    """How to reach it; the public key is not used for draws."""

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.options.server_address

    @property
    def profile(self) -> str:
        """What it speaks."""
        return DIRECT

    @property
    def integrates(self) -> bool:
        """Whether it returns uniform numbers, which it never does."""
        return False

    @property
    def limits(self) -> SourceLimits:
        """What may be asked for; the protocol knows no quotas beforehand."""
        return SourceLimits()

    @property
    def largest_bytes(self) -> int | None:
        """What ``QR_DIRECT_MAX_BYTES_PER_REQUEST`` says, unless that is the default."""
        largest = self.options.max_bytes_per_request
        default: int = DirectOptions.model_fields["max_bytes_per_request"].default
        return None if largest == default else largest

    @property
    def without_commitment(self) -> str:
        """Why no commitment is sent, or nothing where it is."""
        return "" if self.options.commitment else "not sent: QR_DIRECT_COMMITMENT is false"

    @property
    def without_sequence_id(self) -> str:
        """Nothing: every frame names its request."""
        return ""

    def modes(self) -> Iterator[tuple[str, str]]:
        """Yields the one mode that there is."""
        yield DIRECT, ""

    @property
    def public_key(self) -> Path | None:
        """File with the public key of the device, if it is known."""
        return Path(self.options.public_key) if self.options.public_key else None

    def source(self, mode: str, largest_bytes: int, *, verify: bool = False) -> EntropySource:
        """Returns a source; *mode* is the one that there is."""
        largest = min(largest_bytes, self.largest_bytes or largest_bytes)
        options = {**self.options.model_dump(), "max_bytes_per_request": largest}
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
    configured = settings.model_dump()
    return GrpcTarget(GrpcOptions.checked(**configured), configured)


def _direct(address: str, options: dict[str, Any]) -> ProbeTarget:
    taken = {name: options.pop(name) for name in ("timeout_ms", "public_key") if name in options}
    if options:
        raise ConfigError(
            f"{', '.join(sorted(options))}: the direct protocol has no such thing; leave it out"
        )
    if "public_key" in taken:
        taken["public_key"] = str(taken["public_key"])
    settings = DirectSettings.load(server_address=address, **taken)
    return DirectTarget(DirectOptions.checked(**settings.model_dump()))
