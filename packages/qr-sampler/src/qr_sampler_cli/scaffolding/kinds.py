# SPDX-License-Identifier: Apache-2.0
"""The kinds of packages that there are templates of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from qr_sampler import (
    AMPLIFIERS,
    END_REQUEST,
    ENTROPY_SOURCES,
    RAISE_ERROR,
    TEMPERATURE_STRATEGIES,
    Registry,
)

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a package offers."""

    key: str
    """What users call it; its templates are in the folder of that name."""
    words: str
    """The same within a sentence."""
    prefix: str
    """What the distribution's name begins with."""
    variables: str
    """Environment variables begin with this, where the name of the component is in capitals."""
    registry: Registry[Any] | None = None
    """Where the component is declared, if qr-sampler loads it."""
    reserved: frozenset[str] = frozenset()
    """Names that mean something else where the component is configured."""


KINDS: Final = {
    kind.key: kind
    for kind in (
        Kind(
            key="source",
            words="entropy source",
            prefix="qr-entropy",
            variables="QR_{}_",
            registry=ENTROPY_SOURCES,
            reserved=frozenset({END_REQUEST, RAISE_ERROR}),
        ),
        Kind(
            key="server",
            words="entropy server",
            prefix="qr-entropy-server",
            variables="QR_{}_SERVER_",
        ),
        Kind(
            key="amplifier",
            words="signal amplifier",
            prefix="qr-amplifier",
            variables="QR_{}_",
            registry=AMPLIFIERS,
        ),
        Kind(
            key="strategy",
            words="temperature strategy",
            prefix="qr-temperature",
            variables="QR_{}_",
            registry=TEMPERATURE_STRATEGIES,
        ),
    )
}
"""By what users call them."""
