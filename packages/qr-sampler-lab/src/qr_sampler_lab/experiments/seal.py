# SPDX-License-Identifier: Apache-2.0
"""What a seal holds, and its digest: the SHA-256 of the bytes of ``seal.json``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.protocol import Protocol
from qr_sampler_lab.experiments.protocol.files import read_bounded
from qr_sampler_lab.experiments.protocol.part import Part

__all__ = ["SEAL_FORMAT", "Seal", "SealedModel", "SealedOrder", "SealedStudy", "read_seal"]

SEAL_FORMAT: Final = "qr-sampler seal 1"

_LARGEST_SEAL: Final = 2**24

_DIGEST: Final = "^[0-9a-f]{64}$"

_LATER_FIELDS: Final[dict[str, dict[str, Any]]] = {"exclusions": {"suspect_tokens": "exclude"}}
"""By part of a protocol, fields that seals of older versions do not have. When they were sealed no
token could be suspect, so that either value says the same."""


class SealedModel(Part):
    """The model that the study uses."""

    name: str
    manifest_sha256: str = Field(pattern=_DIGEST)
    files: dict[str, str]


class SealedOrder(Part):
    """What decides the order of the arms, and is not known when the study is sealed."""

    method: Literal["drand", "secret"]
    commitment: str | None = Field(
        default=None, pattern=_DIGEST, description="SHA-256 of the secret."
    )
    round: int | None = Field(default=None, ge=1, description="Round of drand's quicknet.")


class RegisterBefore(Part):
    """Where the register stood before this study."""

    lines: int
    head: str = Field(pattern=_DIGEST)


class Seal(Part):
    """Everything that is fixed once a study is sealed; ``seal.json`` holds it."""

    format: Literal["qr-sampler seal 1"]
    name: str
    files: dict[str, str]
    """SHA-256 of the bytes of ``PROTOCOL.yaml``, of all prompts and of files in settings."""
    protocol: dict[str, Any]
    """What the protocol says, with all defaults."""
    tokens_per_arm: dict[str, int]
    """N of the study, at most."""
    model: SealedModel
    code: dict[str, str]
    """Digest of the installed files of every distribution of ours, and of those of the sources."""
    versions: dict[str, str]
    """Versions of these, and of what they calculate with."""
    order: SealedOrder
    aliases: str = Field(pattern=_DIGEST)
    """SHA-256 of the key of the aliases."""
    witness: dict[str, Any] | None
    """A round of drand, so that the seal is not older; ``None`` without an outside witness."""
    register_before: RegisterBefore
    clocks: dict[str, Any]

    @property
    def sealed_protocol(self) -> Protocol:
        """The protocol as it was sealed, whatever ``PROTOCOL.yaml`` says now."""
        return Protocol.model_validate_json(json.dumps(self.protocol))

    @property
    def completed_protocol(self) -> dict[str, Any]:
        """What was sealed, with what fields that came later mean where they are missing."""
        told = dict(self.protocol)
        for part, fields in _LATER_FIELDS.items():
            if isinstance(told.get(part), dict):
                told[part] = {**fields, **told[part]}
        return told

    @property
    def text(self) -> str:
        """The bytes of ``seal.json``, as text: JSON with sorted keys, two spaces, a newline."""
        values = self.model_dump(mode="json")
        return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class SealedStudy:
    """A seal with its digest."""

    seal: Seal
    """What it holds."""
    digest: str
    """SHA-256 of the bytes of the file, as ``sha256sum seal.json`` prints it."""


def read_seal(path: Path) -> SealedStudy:
    """Returns the seal in a file.

    Raises:
        ConfigError: When it cannot be read.
        StudyError: When it is no seal.
    """
    data = read_bounded(path, _LARGEST_SEAL)
    try:
        seal = Seal.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise StudyError(f"{path} is no seal: {place}: {first['msg']}") from error
    if seal.text.encode() != data:
        raise StudyError(f"{path} is no seal: its bytes are not those that a seal is written with")
    return SealedStudy(seal, hashlib.sha256(data).hexdigest())
