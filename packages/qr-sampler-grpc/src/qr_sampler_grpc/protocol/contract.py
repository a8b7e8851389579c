# SPDX-License-Identifier: Apache-2.0
"""What one configured server understands: a profile with what the configuration changes in it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from qr_sampler.entropy import SourceLimits
from qr_sampler.errors import ConfigError
from qr_sampler_grpc.proto.purity_service_pb2 import DrawRequest
from qr_sampler_grpc.protocol.profiles import CUSTOM, PROFILES, Profile
from qr_sampler_grpc.protocol.wire import FieldWire, Wire

__all__ = ["Contract", "field_numbers"]

_DECLARATION: Final = re.compile(r"(\w+)\s*=\s*([1-9]\d{0,8})", re.ASCII)
_MAX_FIELD_NUMBER: Final = 2**29 - 1
_OTHER_FIELDS_BYTES: Final = 1024
"""Room in an answer for everything but its data: names, times, a commitment, a signature."""


def field_numbers(text: str, names: Collection[str]) -> dict[str, int]:
    """Returns the field numbers that *text* declares, as in ``"data=1,device_id=3"``.

    Args:
        text: Declarations separated by commas; may be empty.
        names: What may be declared.

    Raises:
        ValueError: When *text* has another form, an unknown name or a number twice.
    """
    numbers: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _DECLARATION.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is not of the form name=number")
        if int(match[2]) > _MAX_FIELD_NUMBER:
            raise ValueError(f"{part!r} exceeds the largest field number, {_MAX_FIELD_NUMBER}")
        if match[1] not in names:
            raise ValueError(f"{match[1]!r} is no such field; choose from {', '.join(names)}")
        if match[1] in numbers or int(match[2]) in numbers.values():
            raise ValueError(f"{part!r} repeats a name or a number; give each field one number")
        numbers[match[1]] = int(match[2])
    return numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """Methods, messages and limits of one server; construct it with :meth:`declared`."""

    method_path: str
    """The method that requests go to in the configured mode."""
    wire: Wire
    """Encodes requests and decodes answers."""
    limits: SourceLimits
    """What is asked for at most."""
    commits: bool
    """Whether requests have a place for a commitment."""
    names_requests: bool
    """Whether answers name the request they belong to."""
    accepts_chunks: bool
    """Whether the server is told that an answer may come in several messages."""
    integrates: bool
    """Whether the server returns uniform numbers instead of bytes."""
    max_answer_bytes: int
    """Largest message that can be an answer, or a part of one."""

    @classmethod
    def declared(
        cls,
        profile_name: str,
        *,
        mode: str,
        method_path: str = "",
        stream_method_path: str = "",
        request_fields: Mapping[str, int] | None = None,
        answer_fields: Mapping[str, int] | None = None,
        source_id: str = "",
        integrated_bytes: int = 0,
        max_bytes_per_request: int | None = None,
        max_requests_per_minute: int | None = None,
        max_bytes_per_day: int | None = None,
    ) -> Contract:
        """Returns the profile called *profile_name* with the other arguments in place of its own.

        Raises:
            ConfigError: When they do not fit together; the message names them and states what to
                do.
        """
        profile = PROFILES[profile_name]
        _check_applicable(profile_name, request_fields, answer_fields, source_id, integrated_bytes)
        request = request_fields or profile.request_fields
        answer = answer_fields or profile.answer_fields
        path = _path(profile_name, profile, mode, method_path, stream_method_path)
        _check_fields(mode, request, answer)
        largest = 8 if "u" in answer else max_bytes_per_request or profile.max_bytes_per_request
        return cls(
            method_path=path,
            wire=FieldWire(
                request=request,
                answer=answer,
                constant=DrawRequest(
                    source_id=source_id, block_bytes=integrated_bytes
                ).SerializeToString(),
            ),
            limits=SourceLimits(
                max_bytes_per_request=largest,
                max_requests_per_minute=max_requests_per_minute or profile.max_requests_per_minute,
                max_bytes_per_day=max_bytes_per_day or profile.max_bytes_per_day,
            ),
            commits="commitment" in request,
            names_requests="sequence_id" in request and "sequence_id" in answer,
            accepts_chunks="accept_chunks" in request and mode == "server_streaming",
            integrates="u" in answer,
            max_answer_bytes=largest + _OTHER_FIELDS_BYTES,
        )


def _check_applicable(
    profile_name: str,
    request_fields: Mapping[str, int] | None,
    answer_fields: Mapping[str, int] | None,
    source_id: str,
    integrated_bytes: int,
) -> None:
    if (request_fields or answer_fields) and profile_name != CUSTOM:
        declared = " and ".join(
            _listed(fields) for fields in (request_fields, answer_fields) if fields
        )
        raise ConfigError(
            f"fields are declared ({declared}) and the profile {profile_name!r} has its own; "
            f"remove request_fields and answer_fields, or use the profile {CUSTOM!r}"
        )
    if (source_id or integrated_bytes) and profile_name != "qr_purity":
        raise ConfigError(
            f"source_id={source_id!r} and integrated_bytes={integrated_bytes} say nothing to the "
            f"profile {profile_name!r}; remove them or use 'qr_purity'"
        )


def _path(
    profile_name: str, profile: Profile, mode: str, method_path: str, stream_method_path: str
) -> str:
    if mode == "unary":
        return method_path or profile.method_path
    path = stream_method_path or profile.stream_method_path
    if not path:
        raise ConfigError(
            f"the profile {profile_name!r} has no streaming method for the mode {mode!r}; use "
            "'unary', or give stream_method_path"
        )
    return path


def _check_fields(mode: str, request: Mapping[str, int], answer: Mapping[str, int]) -> None:
    if ("data" in answer) == ("u" in answer):
        raise ConfigError(
            f"answer_fields declare {_listed(answer)}; declare either 'data' or 'u', which is what "
            "an answer is read for"
        )
    if "data" in answer and "bytes_needed" not in request:
        raise ConfigError(
            f"request_fields declare {_listed(request)}; declare 'bytes_needed', too, without "
            "which a server cannot know how many to send"
        )
    named = "sequence_id" in request and "sequence_id" in answer
    if mode == "bidi_streaming" and not named:
        raise ConfigError(
            "bidi_streaming matches answers to requests by their sequence_id, and the fields have "
            "none; declare it in both, or use another mode"
        )


def _listed(fields: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={number}" for name, number in fields.items()) or "nothing"
