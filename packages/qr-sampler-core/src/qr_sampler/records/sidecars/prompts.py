# SPDX-License-Identifier: Apache-2.0
"""The sidecar of prompts: their token ids, of which the ledger has keyed digests only."""

from __future__ import annotations

import hmac
import math
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
import numpy as np

from qr_sampler.records.entries import NamedSequence
from qr_sampler.records.sidecars.file import SidecarFile
from qr_sampler.records.sidecars.sidecar import Sidecar

__all__ = ["PROMPTS_SUFFIX", "PromptSidecar", "prompt_digest"]

PROMPTS_SUFFIX: Final = ".prompts.jsonl"
"""What takes the place of ``.jsonl`` in the name of the sidecar."""

_SALT_BYTES: Final = 32
_AT_ONCE: Final = 4_096
"""Number of ids that are converted at once; no longer is the interpreter kept from the steps."""

_encode: Final = msgspec.json.Encoder().encode


def prompt_digest(salt: bytes, token_ids: Sequence[int]) -> str:
    """Returns the keyed digest of a prompt, hexadecimal.

    It is the HMAC-SHA256 of the ids as whole numbers of four bytes, the lowest first, one after the
    other (RFC 2104).

    Args:
        salt: The key, which is the same for a whole run.
        token_ids: The ids.

    Raises:
        OverflowError: When an id does not fit into four bytes.
    """
    digest = hmac.new(salt, digestmod="sha256")
    for part in _parts_of(token_ids):
        digest.update(np.asarray(part, dtype="<i4").tobytes())
    return digest.hexdigest()


class PromptSidecar(Sidecar):
    """Writes the salt of the run, then the prompt of every sequence once.

    Args:
        run_id: Name of the run.
        sync_s: As for :class:`SidecarFile`.
    """

    kind: ClassVar[str] = "prompt"

    def __init__(self, run_id: str, *, sync_s: float = math.inf) -> None:
        self._salt = secrets.token_bytes(_SALT_BYTES)
        first = {"kind": "salt", "run_id": run_id, "salt": self._salt.hex()}
        self._lost: Counter[str] = Counter()
        super().__init__(SidecarFile(PROMPTS_SUFFIX, _encode(first) + b"\n", sync_s=sync_s))

    def sequence(self, sequence: NamedSequence) -> None:
        """Writes the prompt of a sequence whose ids are known and not written yet."""
        prompt = sequence.request.prompt
        if prompt.overflowed:
            prompt.overflowed = False
            self._lost["overflow"] += 1
        token_ids = prompt.take()
        if token_ids is None:
            return
        try:
            prompt.digest = prompt_digest(self._salt, token_ids)
        except OverflowError:
            # No model has such an id.
            self._lost["invalid"] += 1
            return
        self.file.put(_line_of(sequence, token_ids))

    def flush(self) -> Mapping[str, int]:
        """Writes what waits; returns what is lost, those that there was no room for included."""
        lost, self._lost = self._lost, Counter()
        return {**super().flush(), **lost}


def _line_of(sequence: NamedSequence, token_ids: Sequence[int]) -> bytes:
    named = {"kind": "prompt", "sequence": sequence.name, "request_key": sequence.request_key}
    ids = b",".join(_encode(part)[1:-1] for part in _parts_of(token_ids))
    return b'%b,"token_ids":[%b]}\n' % (_encode(named)[:-1], ids)


def _parts_of(token_ids: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(token_ids), _AT_ONCE):
        part: Any = token_ids[start : start + _AT_ONCE]
        yield part.tolist() if isinstance(part, np.ndarray) else list(part)
