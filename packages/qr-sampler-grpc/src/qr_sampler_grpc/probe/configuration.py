# SPDX-License-Identifier: Apache-2.0
"""The variables that make the source draw from a server as it was probed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from qr_sampler import AMPLIFIERS
from qr_sampler_grpc.direct.settings import DirectOptions
from qr_sampler_grpc.probe.target import DirectTarget, GrpcTarget, ProbeTarget
from qr_sampler_grpc.protocol.wire import INTEGRATED_BYTES
from qr_sampler_grpc.settings import GrpcOptions

__all__ = ["KEY_FILE_PLACEHOLDER", "configuration_lines"]

KEY_FILE_PLACEHOLDER: Final = "/path/of/a/file/with/the/key"
"""Placeholder for the file of a key that came from the environment."""


def configuration_lines(
    target: ProbeTarget, *, mode: str, largest_bytes: int | None, verified: bool
) -> dict[str, str]:
    """Returns variables by name, in the order in which they should be read; never a key.

    Args:
        target: The server.
        mode: The mode to draw in.
        largest_bytes: Largest request that it accepts; ``None`` to leave that to the profile.
        verified: Whether the signatures of its answers are right.
    """
    chosen: dict[str, Any] = {}
    if largest_bytes is not None:
        chosen["max_bytes_per_request"] = largest_bytes
    if not verified:
        chosen["public_key"] = None
    if isinstance(target, GrpcTarget):
        return _grpc_lines(target, {"profile": target.profile, "mode": mode, **chosen})
    if isinstance(target, DirectTarget):
        return {
            "QR_ENTROPY_SOURCE_TYPE": "direct",
            "QR_DIRECT_SERVER_ADDRESS": target.address,
            **_changed(target.options, DirectOptions, "QR_DIRECT_", chosen, ("server_address",)),
        }
    raise TypeError(f"{target!r} is no target of a probe")


def _grpc_lines(target: GrpcTarget, chosen: dict[str, Any]) -> dict[str, str]:
    named = {
        "QR_ENTROPY_SOURCE_TYPE": "quantum_grpc",
        "QR_GRPC_SERVER_ADDRESS": target.address,
        "QR_GRPC_PROFILE": chosen.pop("profile"),
        "QR_GRPC_MODE": chosen.pop("mode"),
    }
    skipped = ("server_address", "profile", "mode", "api_key")
    others = _changed(target.options, GrpcOptions, "QR_GRPC_", chosen, skipped)
    if target.options.api_key.get_secret_value():
        others["QR_GRPC_API_KEY_FILE"] = KEY_FILE_PLACEHOLDER
    if target.integrates:
        # The server's number is used for the choice as it is.
        others["QR_SIGNAL_AMPLIFIER_TYPE"] = next(
            name for name in ("server", "uniform53") if name in AMPLIFIERS.names()
        )
        others["QR_SAMPLE_COUNT"] = str(INTEGRATED_BYTES)
    return {**named, **others}


def _changed(
    options: BaseModel,
    kind: type[BaseModel],
    prefix: str,
    chosen: dict[str, Any],
    skipped: tuple[str, ...],
) -> dict[str, str]:
    """Returns the variables of the fields that differ from their defaults."""
    lines = {}
    for name, field in kind.model_fields.items():
        value = chosen.get(name, getattr(options, name))
        if name not in skipped and value not in (field.default, None, ""):
            lines[prefix + name.upper()] = _text(value)
    return lines


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value.resolve()) if isinstance(value, Path) else str(value)
