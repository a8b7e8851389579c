# SPDX-License-Identifier: Apache-2.0
"""From rows to chunks of columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qr_sampler_lab.tables.columns import LABELS, UNKNOWN, Labels, TokenChunk
from qr_sampler_lab.tables.errors import TablesError
from qr_sampler_lab.tables.rows import TokenRow

__all__ = ["Encoder", "Encoders", "chunk_of"]

MOST_NAMES: Final = 2**20
"""Largest number of different texts of a column of labels."""

_INTEGERS: Final = (
    "block_bytes",
    "block_sum",
    "block_ones",
    "rank",
    "candidates",
    "position",
)
_FLOATS: Final = (
    "u",
    "statistic",
    "temperature",
    "entropy_nats",
    "varentropy_nats2",
    "probability",
)


class Encoder:
    """Gives every text of a column a code.

    Args:
        column: What the column is called.
    """

    def __init__(self, column: str) -> None:
        self.names: list[str | None] = []
        """The texts, by code."""
        self._column = column
        self._codes: dict[str | None, int] = {}

    def __call__(self, texts: Iterable[str | None]) -> Labels:
        """Returns texts as labels.

        Raises:
            TablesError: When there are too many different ones.
        """
        codes = self._codes
        told = list(texts)
        for text in dict.fromkeys(told):
            if text not in codes:
                self._add(text)
        return Labels(np.array([codes[text] for text in told], dtype=np.int32), self.names)

    def _add(self, text: str | None) -> None:
        if len(self.names) >= MOST_NAMES:
            raise TablesError(
                f"the column {self._column!r} has more than {MOST_NAMES:,} different texts, which "
                "are all held in memory; read fewer ledgers at once"
            )
        self._codes[text] = len(self.names)
        self.names.append(text)


class Encoders:
    """The encoders of one reading."""

    def __init__(self) -> None:
        self.of: dict[str, Encoder] = {name: Encoder(name) for name in LABELS}
        """By name of the column."""


def chunk_of(rows: Sequence[TokenRow], run: str, encoders: Encoders) -> TokenChunk:
    """Returns the tokens of a run as a chunk, in the order given.

    Args:
        rows: The tokens.
        run: Name of the run.
        encoders: Of the labels.
    """
    tokens = [row.token for row in rows]
    draws = [row.draw for row in rows]
    sequences = [row.sequence for row in rows]
    encode = encoders.of
    columns: dict[str, Any] = {name: _integers(tokens, name) for name in _INTEGERS}
    columns |= {name: _floats(tokens, name) for name in _FLOATS}
    return TokenChunk(
        **columns,
        received_ns=_integers(draws, "received_ns"),
        request_ns=_integers(draws, "request_ns"),
        lattice_step=np.array(
            [np.nan if t.lattice_step is None else t.lattice_step for t in tokens], np.float64
        ),
        offset=np.array([UNKNOWN if t.offset is None else t.offset for t in tokens], np.int64),
        draw=np.array([UNKNOWN if t.draw is None else t.draw for t in tokens], np.int64),
        token_id=np.array([row.token_id for row in rows], np.int64),
        sequence=_integers(sequences, "number"),
        numbers=np.array([1 if t.uniforms is None else len(t.uniforms) for t in tokens], np.int64),
        emitted=np.array([row.emitted for row in rows], np.int8),
        fallback=np.array([draw.fallback for draw in draws], np.bool_),
        health=encode["health"](draw.health for draw in draws),
        jit=np.array([token.jit for token in tokens], np.bool_),
        run=encode["run"]([run] * len(rows)),
        source=encode["source"](draw.source for draw in draws),
        requested=encode["requested"](each.requested for each in sequences),
        device=encode["device"](draw.device for draw in draws),
        amplifier=encode["amplifier"](
            row.token.amplifier or row.sequence.amplifier for row in rows
        ),
        baseline=encode["baseline"](token.baseline for token in tokens),
        condition=encode["condition"](each.condition for each in sequences),
        trial=encode["trial"](each.trial for each in sequences),
        role=encode["role"](token.role for token in tokens),
        outcome=encode["outcome"](token.outcome for token in tokens),
    )


def _integers(objects: Sequence[Any], name: str) -> NDArray[np.int64]:
    return np.array([getattr(each, name) for each in objects], dtype=np.int64)


def _floats(objects: Sequence[Any], name: str) -> NDArray[np.float64]:
    return np.array([getattr(each, name) for each in objects], dtype=np.float64)
