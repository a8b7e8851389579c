# SPDX-License-Identifier: Apache-2.0
"""Errors raised by qr-sampler.

Every error derives from :class:`QRSamplerError` and from the builtin that a caller would expect, so
``except ValueError`` catches a bad setting. All of them survive pickling, because vLLM hands
exceptions from one process to another.
"""

from __future__ import annotations

__all__ = [
    "ComponentError",
    "ConfigError",
    "EntropyUnavailableError",
    "PluginConflictError",
    "PluginError",
    "PluginLoadError",
    "QRSamplerError",
    "UnknownPluginError",
    "shown",
]

_SHOWN_CHARACTERS = 120


class QRSamplerError(Exception):
    """Root of every error that qr-sampler raises on purpose."""


class ConfigError(QRSamplerError, ValueError):
    """A setting or a per-request override is unknown, malformed or out of range."""


class EntropyUnavailableError(QRSamplerError, RuntimeError):
    """A source could not deliver the requested bytes.

    The only error that makes a :class:`~qr_sampler.entropy.FallbackEntropySource` fall back; all
    others propagate.

    Attributes:
        source: Name of the source that failed.
        reason: What went wrong, in words that an operator can act on.
        dropped_bytes: Number of bytes that were delivered nevertheless, and dropped.
        retry_after_s: Seconds after which a retry is worthwhile, if the source only needs time, for
            example until a quota recovers; ``math.inf`` if it never is, and ``None`` if that is
            unknown. For callers that can wait; an engine never does.
    """

    def __init__(
        self,
        source: str,
        reason: str,
        *,
        dropped_bytes: int = 0,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason
        self.dropped_bytes = dropped_bytes
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"entropy source {self.source!r} is unavailable: {self.reason}"


class ComponentError(QRSamplerError, RuntimeError):
    """An amplifier or a temperature strategy has broken its contract in a step.

    Attributes:
        kind: What it is, for example ``"signal amplifier"``.
        name: What it is configured as.
        reason: How it has broken it.
    """

    def __init__(self, kind: str, name: str, reason: str) -> None:
        super().__init__(kind, name, reason)
        self.kind = kind
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} has a defect: {self.reason}; choose another one"


class PluginError(QRSamplerError):
    """A component named in the configuration cannot be used."""


class UnknownPluginError(PluginError, ConfigError):
    """No installed distribution provides a component of this name.

    Attributes:
        kind: What was looked up, for example ``"entropy source"``.
        name: The name that was not found.
        available: The names that exist.
    """

    def __init__(self, kind: str, name: str, available: tuple[str, ...]) -> None:
        super().__init__(kind, name, available)
        self.kind = kind
        self.name = name
        self.available = available

    def __str__(self) -> str:
        choices = ", ".join(self.available) or "none; install a package that provides one"
        return f"unknown {self.kind} {shown(self.name)}; available: {choices}"


class PluginConflictError(PluginError, ConfigError):
    """Two distributions claim the same component name, so its origin would be ambiguous.

    Attributes:
        kind: What was looked up, for example ``"entropy source"``.
        name: The contested name.
        distributions: The distributions that claim it.
    """

    def __init__(self, kind: str, name: str, distributions: tuple[str, ...]) -> None:
        super().__init__(kind, name, distributions)
        self.kind = kind
        self.name = name
        self.distributions = distributions

    def __str__(self) -> str:
        claimants = " and ".join(self.distributions)
        return f"{self.kind} {self.name!r} is claimed by {claimants}; uninstall all but one of them"


class PluginLoadError(PluginError, ImportError):
    """An installed component failed to import or is not of the promised type.

    Attributes:
        kind: What was loaded, for example ``"entropy source"``.
        plugin: Name of the component.
        distribution: The distribution that provides it, with its version.
        reason: Why it cannot be used.
    """

    def __init__(self, kind: str, plugin: str, distribution: str, reason: str) -> None:
        super().__init__(kind, plugin, distribution, reason)
        self.kind = kind
        self.plugin = plugin
        self.distribution = distribution
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.plugin!r} from {self.distribution} cannot be loaded: "
            f"{self.reason}; repair or uninstall that distribution"
        )


def shown(value: object) -> str:
    """Returns *value* as an error message shows it: its ``repr``, cut where it would fill a log.

    Examples:
        >>> shown("abc")
        "'abc'"
        >>> shown(10**5000)
        '<int that is too long to print>'
    """
    try:
        text = repr(value)
    # Python refuses to print integers of more than some thousand digits, also inside a list, and
    # lists that are nested as deeply.
    except (ValueError, RecursionError):
        return f"<{type(value).__name__} that is too long to print>"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
