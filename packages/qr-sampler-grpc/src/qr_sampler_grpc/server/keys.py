# SPDX-License-Identifier: Apache-2.0
"""The API keys that a server accepts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from qr_sampler.errors import ConfigError
from qr_sampler_grpc.connection.credentials import ApiKey
from qr_sampler_grpc.connection.private_file import warn_of_others

__all__ = ["ApiKeys", "read_secrets"]


class ApiKeys:
    """Several secrets under one metadata key; shows none of them in its representation.

    Args:
        header: Metadata key that carries a secret, lower case.
        secrets: The secrets, one of which every call must carry.

    Raises:
        ConfigError: When there are none, one appears twice, or one cannot travel; never quotes one.
    """

    def __init__(self, header: str, secrets: Iterable[str]) -> None:
        self.header = header
        self._keys = tuple(ApiKey(header, secret) for secret in secrets)
        if not self._keys:
            raise ConfigError(
                "no API key is given; give at least one, or none at all for everybody"
            )
        if len({key.secret for key in self._keys}) < len(self._keys):
            raise ConfigError("two API keys are equal; their holders would share one quota")

    @property
    def accounts(self) -> tuple[str, ...]:
        """What :meth:`account_of` may return."""
        return tuple(f"key {number}" for number in range(1, len(self._keys) + 1))

    def account_of(self, metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
        """Returns the account whose key *metadata* carries, in time independent of its contents.

        Returns:
            ``"key 1"`` for the first key and so on, or ``None`` without a valid key.
        """
        entries = tuple(metadata)
        account = None
        # Every key is compared, so that the time does not tell which one is close.
        for number, key in enumerate(self._keys, start=1):
            if key.is_in(entries):
                account = f"key {number}"
        return account

    def __repr__(self) -> str:
        return f"{type(self).__name__}(header={self.header!r}, keys={len(self._keys)})"


def read_secrets(path: Path) -> tuple[str, ...]:
    """Returns the secrets in the file *path*: one a line, empty lines and space around it ignored.

    Raises:
        ConfigError: When the file cannot be read or holds none; never quotes what it holds.
    """
    warn_of_others(path, "file of API keys")
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read the API keys from {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        # The error itself would quote the file.
        raise ConfigError(f"cannot read the API keys from {path}: it is not text") from None
    secrets = tuple(stripped for line in lines if (stripped := line.strip()))
    if not secrets:
        raise ConfigError(f"{path} holds no API key; write one a line")
    return secrets
