# SPDX-License-Identifier: Apache-2.0
"""The prompts of sequences, from files that stand beside ledgers or are named."""

from __future__ import annotations

import hashlib
import hmac
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec

from qr_sampler.errors import ConfigError
from qr_sampler_cli.audit.schema.token_lines import Sequence

__all__ = ["MOST_BYTES", "PromptFile", "Prompts", "prompt_digest", "sidecar_of"]

MOST_BYTES: Final = 2**26
"""Longest line of a file of prompts."""

TokenId = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class _Line(msgspec.Struct, kw_only=True):
    """A line: a prompt, or the salt; other keys may stand beside these."""

    kind: str = "prompt"
    sequence: str = ""
    request_key: str = ""
    token_ids: list[TokenId] | None = None
    run_id: str = ""
    salt: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2})*$")] = ""


def sidecar_of(ledger: Path) -> Path:
    """Returns the file that holds the prompts of *ledger* if it was written."""
    return ledger.with_name(f"{ledger.stem}.prompts.jsonl")


def prompt_digest(salt: bytes, token_ids: array[int]) -> str:
    """Returns what a ledger has of a prompt.

    HMAC-SHA256 (RFC 2104), keyed by the salt, of the ids as int32, little-endian.

    Args:
        salt: Of the run.
        token_ids: Of the prompt, as ``array("i")``.
    """
    data = array("i", token_ids)
    if sys.byteorder == "big":
        data.byteswap()
    return hmac.new(salt, data.tobytes(), hashlib.sha256).hexdigest()


class PromptFile:
    """One file, of which only the places of the prompts are remembered.

    Args:
        path: JSON Lines: ``token_ids`` with ``request_key`` or ``sequence``, and lines of the kind
            ``salt``.
        name: What a message calls it.

    Raises:
        ConfigError: When it cannot be read, or a line is none of these.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._decoder = msgspec.json.Decoder(_Line)
        self._by_sequence: dict[str, int] = {}
        self._by_request: dict[str, int] = {}
        self.salts: dict[str, bytes] = {}
        """The salts of runs."""
        for offset, line in self._lines():
            if line.kind == "salt":
                self.salts[line.run_id] = bytes.fromhex(line.salt)
            elif line.kind == "prompt" and line.token_ids is not None:
                if line.sequence:
                    self._by_sequence[line.sequence] = offset
                # Answers of one request have one prompt; of several, the name of the sequence says.
                self._by_request.setdefault(line.request_key, offset)

    def _lines(self) -> Iterator[tuple[int, _Line]]:
        offset = number = 0
        try:
            with self._path.open("rb") as file:
                while text := file.readline(MOST_BYTES):
                    number += 1
                    # The process that writes it may be at it, or have been killed.
                    if not text.endswith(b"\n") and len(text) < MOST_BYTES:
                        return
                    yield offset, self._decoder.decode(text)
                    offset += len(text)
        except OSError as error:
            raise ConfigError(f"{self._name}: {error.strerror}") from error
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ConfigError(
                f"{self._name}, line {number}: {error}; every line is an object with token_ids, "
                "and request_key or sequence"
            ) from error

    def knows(self, sequence: Sequence) -> bool:
        """Returns whether the prompt of a sequence is here."""
        return self._place(sequence) is not None

    def _place(self, sequence: Sequence) -> int | None:
        offset = self._by_sequence.get(sequence.sequence)
        return self._by_request.get(sequence.request_key) if offset is None else offset

    def find(self, sequence: Sequence) -> array[int] | None:
        """Returns the prompt of a sequence, if it is here."""
        offset = self._place(sequence)
        if offset is None:
            return None
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                ids = self._decoder.decode(file.readline(MOST_BYTES)).token_ids
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigError(f"{self._name} has changed while it was read: {error}") from error
        return array("i", ids or [])


class Prompts:
    """All files of prompts.

    Args:
        named: The file that was named, if one was.
    """

    def __init__(self, named: Path | None = None) -> None:
        self._files = [] if named is None else [PromptFile(named, f"--prompts={named}")]

    def add_sidecar(self, ledger: Path) -> None:
        """Takes in the file beside *ledger*, if there is one."""
        path = sidecar_of(ledger)
        if path.is_file():
            self._files.append(PromptFile(path, str(path)))

    def know(self, sequence: Sequence) -> bool:
        """Returns whether the prompt of a sequence is in one of them."""
        return any(file.knows(sequence) for file in self._files)

    def find(self, sequence: Sequence) -> array[int] | None:
        """Returns the prompt of a sequence; the file that was named comes first."""
        found = (file.find(sequence) for file in self._files)
        return next((prompt for prompt in found if prompt is not None), None)

    def salt(self, run_id: str) -> bytes | None:
        """Returns the salt of a run, if a file has it."""
        salts = (file.salts.get(run_id) for file in self._files)
        return next((salt for salt in salts if salt is not None), None)
