# SPDX-License-Identifier: Apache-2.0
"""Tables in which nothing but aliases tells the arms of an experiment apart.

Whatever a setting of an arm shows in is left out: sizes and offsets of blocks, lattices,
temperatures, ranks and probabilities, fallback, health, devices, versions, names of sequences and
of requests, the reasons of discards, and all times. The source of a token is that which its request
asked for, for a fallback would carry the name of another arm. What stays are u and the statistic,
in the order of time, and who belongs together.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from qr_sampler_lab.tables.arrow import dictionary_of
from qr_sampler_lab.tables.columns import Integers, Labels, TokenChunk
from qr_sampler_lab.tables.errors import TablesError

__all__ = ["BLIND_DISCARDS", "BLIND_SEQUENCES", "BLIND_TOKENS", "Blinding", "blinding_key"]

_TEXT: Final = pa.dictionary(pa.int32(), pa.string())

BLIND_TOKENS: Final = pa.schema(
    [
        ("order", pa.int64()),
        ("u", pa.float64()),
        ("statistic", pa.float64()),
        ("sequence", pa.int64()),
        ("emitted", pa.bool_()),
        ("run", _TEXT),
        ("source", _TEXT),
        ("condition", _TEXT),
        ("trial", _TEXT),
    ]
)
"""Columns of the blind table of tokens. ``order`` is the number of the token's draw in the order of
time."""

BLIND_SEQUENCES: Final = pa.schema(
    [
        ("run", _TEXT),
        ("sequence", pa.int64()),
        ("source", _TEXT),
        ("condition", _TEXT),
        ("trial", _TEXT),
    ]
)
"""Columns of the blind table of sequences."""

BLIND_DISCARDS: Final = pa.schema(
    [
        ("run", _TEXT),
        ("sequence", pa.int64()),
        ("source", _TEXT),
        ("condition", _TEXT),
        ("trial", _TEXT),
        ("u", pa.float64()),
    ]
)
"""Columns of the blind table of discards, of which there are only those with a u and a sequence:
which sources are late would tell them apart."""

_ALIAS_DIGITS: Final = 16
_KEY: Final = re.compile("[0-9a-f]{64}", re.IGNORECASE)
_FEWEST_BYTES: Final = 16
_MOST_BYTES: Final = 2**20


def blinding_key(told: str) -> bytes:
    """Returns the key of aliases, 32 bytes.

    Args:
        told: 64 hexadecimal digits; or a file, whose SHA-256 is the key.

    Raises:
        TablesError: When it is neither.
    """
    if _KEY.fullmatch(told):
        return bytes.fromhex(told)
    path = Path(told)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            content = file.read(_MOST_BYTES + 1) if regular else b""
    except (OSError, ValueError) as error:
        raise TablesError(
            f"{told!r} is neither a key of 64 hexadecimal digits nor a file: {error}"
        ) from error
    if not _FEWEST_BYTES <= len(content) <= _MOST_BYTES:
        raise TablesError(
            f"{path} cannot be a key: a file with {_FEWEST_BYTES} to {_MOST_BYTES:,} bytes can"
        )
    return hashlib.sha256(content).digest()


class Blinding:
    """Gives names aliases that only who has the key can compute.

    Args:
        key: The key, see :func:`blinding_key`.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._names: dict[str, list[str | None]] = {}
        self._draws = 0
        self._latest: tuple[int, int] | None = None
        self._has_baseline = self._has_drafts = False
        self._lattice_step = 0.0

    @property
    def law(self) -> dict[str, Any]:
        """What has to be known of the law of u, of all arms together.

        Whether some of it refers to a baseline, whether there are numbers of drafts, and the widest
        lattice step.
        """
        return {
            "baseline": self._has_baseline,
            "drafts": self._has_drafts,
            "lattice_step": self._lattice_step or None,
        }

    def alias(self, column: str, text: str | None) -> str:
        """Returns the alias of a text; "no text" has one, too. HMAC-SHA256, 64 bits of it."""
        told = b"\0" if text is None else b"\1" + text.encode()
        message = column.encode() + told
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:_ALIAS_DIGITS]

    def number(self, column: str, number: int) -> int:
        """Returns the alias of a number, a number again."""
        return int(self.alias(column, str(number)), 16) >> 1

    def batch(self, chunk: TokenChunk) -> pa.RecordBatch:
        """Returns a chunk of a reading as rows of the table of tokens. Chunks come in order."""
        self._has_baseline |= _has_some(chunk.baseline)
        self._has_drafts |= _has_some(chunk.role)
        steps = chunk.lattice_step[np.isfinite(chunk.lattice_step)]
        self._lattice_step = float(steps.max(initial=self._lattice_step))
        columns: dict[str, Any] = {
            "order": pa.array(self._order_of(chunk)),
            "u": pa.array(chunk.u),
            "statistic": pa.array(chunk.statistic),
            "sequence": pa.array(self._sequences(chunk.sequence)),
            "emitted": pa.array(chunk.emitted == 1, mask=chunk.emitted < 0),
            "run": self._labels("run", chunk.run),
            "source": self._labels("source", chunk.requested),
            "condition": self._labels("condition", chunk.condition),
            "trial": self._labels("trial", chunk.trial),
        }
        return pa.record_batch([columns[n] for n in BLIND_TOKENS.names], schema=BLIND_TOKENS)

    def _labels(self, column: str, labels: Labels) -> pa.DictionaryArray:
        known = self._names.setdefault(column, [])
        known += [self.alias(column, name) for name in labels.names[len(known) :]]
        return dictionary_of(Labels(labels.codes, known))

    def _sequences(self, numbers: Integers) -> Integers:
        used, index = np.unique(numbers, return_inverse=True)
        aliases = [self.number("sequence", number) for number in used.tolist()]
        return np.array(aliases, dtype=np.int64)[index]

    def _order_of(self, chunk: TokenChunk) -> Integers:
        """Returns the number of every token's draw in the order of time."""
        keys: Sequence[Integers] = (chunk.received_ns, chunk.run.codes.astype(np.int64))
        new = np.ones(len(chunk), dtype=np.bool_)
        new[1:] = (np.diff(keys[0]) != 0) | (np.diff(keys[1]) != 0)
        new[0] = (int(keys[0][0]), int(keys[1][0])) != self._latest
        order: Integers = self._draws - 1 + np.cumsum(new)
        self._latest = int(keys[0][-1]), int(keys[1][-1])
        self._draws = int(order[-1]) + 1
        return order


def _has_some(labels: Labels) -> bool:
    """Returns whether any of the texts is not empty."""
    return any(labels.names[code] for code in np.unique(labels.codes).tolist())
