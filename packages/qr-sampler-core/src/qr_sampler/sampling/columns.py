# SPDX-License-Identifier: Apache-2.0
"""The rows of a step as lists, which are read one by one more quickly than arrays are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from qr_sampler.arrays import FloatArray
from qr_sampler.entropy.draw import EntropyDraw
from qr_sampler.sampling.commitment import link_digest
from qr_sampler.sampling.pipeline import StepResult
from qr_sampler.temperature.base import rounded

__all__ = ["Remembered", "StepColumns"]

T = TypeVar("T")


class column(Generic[T]):  # noqa: N801
    """``functools.cached_property`` without the lock that it takes before Python 3.12.

    Args:
        make: Makes the column of a step.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make, self._name, self.__doc__ = make, make.__name__, make.__doc__

    def __get__(self, step: Any, owner: type) -> T:
        if step is None:
            return self  # type: ignore[return-value]
        value: T = self._make(step)
        # From now on the attribute of the instance is found first.
        step.__dict__[self._name] = value
        return value


class Remembered(NamedTuple):
    """What a sequence remembers of one of its tokens."""

    token_id: int
    """The token."""
    entropy_nats: float | None
    """Entropy of its row as strategies see it; ``None`` if no entropy has chosen the token."""
    link: bytes | None
    """What ties the next row of its sequence to it, empty if no commitment was made; ``None`` if no
    entropy has chosen the token, so that an earlier link stays valid."""


class StepColumns:
    """What a step has decided, by column; each column is made once, when it is first read.

    An accelerator's tokens are on their way to the host when the step is over, so that reading any
    column but those of the plan may wait for them.

    Args:
        step: What was decided, D rows. Its fields are explained there and in
            :class:`~qr_sampler.TokenSamplingRecord`.
    """

    def __init__(self, step: StepResult) -> None:
        self._step = step

    @property
    def draw(self) -> EntropyDraw:
        """The draw that served all rows, without its bytes."""
        return self._step.draw

    @property
    def draw_bytes(self) -> int:
        """How many bytes it brought."""
        return self._step.draw_bytes

    @property
    def data_sha256(self) -> str:
        """SHA-256 of them, hexadecimal, for which this may wait; empty if nobody keeps it."""
        digest = self._step.data_digest
        return "" if digest is None else digest.result().hex()

    @property
    def data(self) -> bytes | None:
        """These bytes; ``None`` if nobody keeps them."""
        kept = self._step.kept
        return None if kept is None else kept.data

    @property
    def rows_told(self) -> tuple[str, ...]:
        """None apart from :attr:`row_digests`, each of which is in a line of its own."""
        return ()

    @property
    def logits_ready_ns(self) -> int:
        """When the logits were complete."""
        return self._step.plan.logits_ready_ns

    @column
    def token_ids(self) -> list[int]:
        """The tokens."""
        return _listed(self._step.selection.token_ids)

    @column
    def u(self) -> list[float]:
        """The numbers that selected them."""
        return _listed(self._step.amplification.u)

    @column
    def remembered(self) -> list[Remembered]:
        """What the sequences remember of their tokens.

        Entropies are rounded, so that their means are the same on every machine.
        """
        step = self._step
        token_ids = self.token_ids = step.selection.token_ids.tolist()
        seen = rounded(step.plan.temperature.entropy_nats).tolist()
        links = self.links if step.row_digests else [b""] * len(token_ids)
        return [*map(Remembered, token_ids, seen, links)]

    @column
    def links(self) -> list[bytes]:
        """What ties the next row of each sequence to this one; empty without a commitment."""
        digests = self._step.row_digests
        if not digests:
            return [b""] * len(self._step.block_bytes)
        rows = zip(digests, self.token_ids, self.u, strict=True)
        return [link_digest(digest, token_id, u) for digest, token_id, u in rows]

    @column
    def block_bytes(self) -> list[int]:
        """Number of bytes that decided each token."""
        return _listed(self._step.block_bytes)

    @column
    def offsets(self) -> list[int]:
        """Index of the first of those bytes among those of the draw."""
        return _listed(np.cumsum(self._step.block_bytes) - self._step.block_bytes)

    @column
    def block_sum(self) -> list[int]:
        """Sum of those bytes."""
        return _listed(self._step.block_sum)

    @column
    def block_ones(self) -> list[int]:
        """Number of one bits among those bytes."""
        return _listed(self._step.block_ones)

    @column
    def statistic(self) -> list[float]:
        """The amplifier's statistics."""
        return _listed(self._step.amplification.statistic)

    @column
    def lattice_step(self) -> list[float | None]:
        """Distances between neighbouring values of u; ``None`` where unknown."""
        return _known(self._step.amplification.lattice_step)

    @column
    def baseline(self) -> list[str]:
        """Digests of the baselines that u refers to."""
        return _listed(self._step.amplification.baseline)

    @column
    def temperature(self) -> list[float]:
        """Temperatures used."""
        return _listed(self._step.plan.temperature.temperature)

    @column
    def entropy_nats(self) -> list[float]:
        """Entropies as measured."""
        return _listed(self._step.plan.temperature.entropy_nats)

    @column
    def varentropy_nats2(self) -> list[float]:
        """Varentropies as measured."""
        return _listed(self._step.plan.temperature.varentropy_nats2)

    @column
    def running_entropy_nats(self) -> list[float | None]:
        """Running means before the tokens; ``None`` where there is none yet."""
        return _known(self._step.plan.rows.running_entropy)

    @column
    def rank(self) -> list[int]:
        """Ranks of the tokens."""
        return _listed(self._step.selection.rank)

    @column
    def probability(self) -> list[float]:
        """Probabilities of the tokens."""
        return _listed(self._step.selection.probability)

    @column
    def candidates(self) -> list[int]:
        """Numbers of tokens that truncation kept."""
        return _listed(self._step.selection.candidates)

    @column
    def commitment(self) -> str:
        """The digest that travelled with the request, hexadecimal; empty if none did."""
        return self._step.commitment.hex()

    @column
    def row_digests(self) -> list[str]:
        """The part of each row in it; empty without one."""
        digests = self._step.row_digests or [b""] * len(self._step.block_bytes)
        return [digest.hex() for digest in digests]

    @property
    def numbers(self) -> tuple[NDArray[Any], ...]:
        """The columns of numbers in a token's line, from the offset on, in the order of the line.

        Arrays of any type, with NaN for what is unknown: whoever hands on all of them has no use
        for lists.
        """
        step = self._step
        amplification, selection, plan = step.amplification, step.selection, step.plan
        settled = plan.temperature
        sizes = step.block_bytes
        return (
            sizes.cumsum() - sizes,
            sizes,
            step.block_sum,
            step.block_ones,
            amplification.u,
            amplification.statistic,
            settled.temperature,
            settled.entropy_nats,
            settled.varentropy_nats2,
            selection.rank,
            selection.probability,
            selection.candidates,
            plan.rows.running_entropy,
            amplification.lattice_step,
        )

    @property
    def texts(self) -> tuple[list[str], list[str]]:
        """Its columns of texts that follow them: the baselines and the row digests."""
        digests = self._step.row_digests
        return self.baseline, self.row_digests if digests else [""] * len(self._step.block_bytes)


def _listed(values: NDArray[Any]) -> list[Any]:
    listed: list[Any] = values.tolist()
    return listed


def _known(values: FloatArray) -> list[float | None]:
    """Returns *values* with ``None`` for the NaN that stands for an unknown one."""
    listed = _listed(values)
    if np.isnan(values).any():
        return [None if math.isnan(value) else value for value in listed]
    return listed
