# SPDX-License-Identifier: Apache-2.0
"""Names behind which arms stay until the end, and the key that takes them off."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pydantic import Field, ValidationError

from qr_sampler.whole_file import write_whole
from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.protocol import Protocol
from qr_sampler_lab.experiments.protocol.files import read_bounded
from qr_sampler_lab.experiments.protocol.part import Part

__all__ = ["MAIN", "Phase", "StudyKey", "aliases_of", "commitment_of"]

Phase: TypeAlias = Literal["main", "calibration", "sham"]
"""What a request belongs to: the randomised blocks, or the schedule around them."""

MAIN: Final = "main"

SECRET_BYTES: Final = 32

_LARGEST_KEY: Final = 4_096

_ALIAS_DIGITS: Final = 8
"""Hexadecimal digits of an alias: two of 64 arms share one once in two million studies."""


class _KeyFile(Part):
    """What the file of a key holds."""

    format: Literal["qr-sampler study key 1"]
    alias_key: str = Field(pattern="^[0-9a-f]{64}$")
    order_secret: str = Field(pattern="^[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StudyKey:
    """The secrets of a study; the seal holds their digests only."""

    alias_key: bytes
    """32 random bytes that aliases are made with."""
    order_secret: bytes
    """32 random bytes that the order is made with, if no public round decides it."""

    @classmethod
    def fresh(cls) -> StudyKey:
        """Returns new secrets from the operating system."""
        return cls(
            alias_key=secrets.token_bytes(SECRET_BYTES),
            order_secret=secrets.token_bytes(SECRET_BYTES),
        )

    @classmethod
    def read(cls, path: Path) -> StudyKey:
        """Returns the secrets in a file.

        Raises:
            ConfigError: When it cannot be read.
            StudyError: When it holds no key.
        """
        try:
            file = _KeyFile.model_validate_json(read_bounded(path, _LARGEST_KEY))
        except ValidationError as error:
            # What the file holds stays out of messages.
            raise StudyError(f"{path} holds no key of a study; bring back the right one") from error
        return cls(
            alias_key=bytes.fromhex(file.alias_key), order_secret=bytes.fromhex(file.order_secret)
        )

    def write(self, path: Path) -> None:
        """Writes the secrets to a new file that its owner alone can read.

        Raises:
            StudyError: When it exists or cannot be written.
        """
        file = _KeyFile(
            format="qr-sampler study key 1",
            alias_key=self.alias_key.hex(),
            order_secret=self.order_secret.hex(),
        )
        try:
            write_whole(path, json.dumps(file.model_dump(), indent=2) + "\n", mode=0o600)
        except OSError as error:
            raise StudyError(f"{path} cannot be written: {error.strerror}") from error


def commitment_of(secret: bytes) -> str:
    """Returns the SHA-256 of a secret, which a seal holds until the secret is made known."""
    return hashlib.sha256(secret).hexdigest()


def aliases_of(protocol: Protocol, alias_key: bytes) -> dict[tuple[Phase, str], str]:
    r"""Returns the alias of every arm in every phase that it occurs in.

    It is ``arm-`` and the first 8 hexadecimal digits of HMAC-SHA256, keyed with *alias_key*, over
    ``qr-sampler alias 1\n{phase}\n{arm}``. An arm has other aliases in the schedule than in the
    blocks, so that a calibration does not tell which arm of the blocks it is.

    Raises:
        StudyError: When two arms would have the same alias.
    """
    places: list[tuple[Phase, str]] = [(MAIN, arm.name) for arm in protocol.arms if arm.per_block]
    places += [(run.phase, run.arm) for run in protocol.schedule]
    aliases = {place: _alias(alias_key, *place) for place in places}
    if len(set(aliases.values())) < len(aliases):
        raise StudyError("two arms have the same alias; remove the key and seal again")
    return aliases


def _alias(alias_key: bytes, phase: str, arm: str) -> str:
    message = f"qr-sampler alias 1\n{phase}\n{arm}".encode()
    digest = hmac.digest(alias_key, message, "sha256").hex()
    return f"arm-{digest[:_ALIAS_DIGITS]}"
