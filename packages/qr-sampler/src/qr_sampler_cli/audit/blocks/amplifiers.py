# SPDX-License-Identifier: Apache-2.0
"""Rung 4, u: what amplifiers make of a block, or of its sum and ones if those are all there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qr_sampler import BitZScoreAmplifier, BlockCounts, SignalAmplifier, ZScoreMeanAmplifier
from qr_sampler.amplification.control import UNIFORM_STEP, Uniform53Amplifier
from qr_sampler.amplification.exact import ExactBitsAmplifier, ExactSumAmplifier
from qr_sampler.amplification.server import ServerAmplifier
from qr_sampler.amplification.walk import RandomWalkAmplifier
from qr_sampler.errors import ConfigError
from qr_sampler.settings import BYTE_MEAN, BYTE_STD
from qr_sampler_cli.audit.blocks.stored import LARGEST_BLOCK
from qr_sampler_cli.audit.findings import Rung

__all__ = ["TOLERANCE", "AmplifiedTokens", "TokenNumbers"]

TOLERANCE: Final = 1e-12
"""Largest difference of a recomputed number, relative where it is larger than 1."""

_BATCH: Final = 4_096
_MOST_GROUPS: Final = 256

_MOST_BLOCK_BYTES: Final = 2**24
"""Most bytes of blocks that wait to be judged."""

_OF_BYTES: Final[Mapping[str, Callable[[], SignalAmplifier]]] = {
    "exact_bits": ExactBitsAmplifier,
    "exact_sum": ExactSumAmplifier,
    "random_walk": RandomWalkAmplifier,
    "server": ServerAmplifier,
    "uniform53": Uniform53Amplifier,
}
"""Amplifiers that need the block itself."""

_TO_THE_BIT: Final = frozenset({"random_walk", "server", "uniform53"})
"""Those whose u is the same on every machine: it takes no rounding."""


class TokenNumbers(NamedTuple):
    """What a token line says of its block and of u."""

    sum: int
    ones: int
    u: float
    statistic: float
    lattice_step: float
    place: int
    block: bytes | None = None
    """The block itself, if it is there."""


class _Group(NamedTuple):
    """What tokens have in common that are recomputed together."""

    amplifier: str
    block_bytes: int
    ideal: bool
    """Whether the figures are those of ideal bytes, whatever the deployment has set."""
    stored: bool
    """Whether the blocks are there."""


class _Recorded(BlockCounts):
    """Counts that stand in records, of blocks that nobody has any more."""

    def __init__(self, sums: NDArray[np.intp], ones: NDArray[np.intp]) -> None:
        self._recorded = sums, ones

    @property
    def sums(self) -> NDArray[np.intp]:
        return self._recorded[0]

    @property
    def ones(self) -> NDArray[np.intp]:
        return self._recorded[1]


class AmplifiedTokens:
    """Recomputes u, statistic and lattice step of tokens, many at a time.

    Args:
        rung: Takes the findings.
    """

    def __init__(self, rung: Rung) -> None:
        self._rung = rung
        self._settings: Mapping[str, Any] = {}
        self._groups: dict[_Group, list[TokenNumbers]] = {}
        self.recomputed = 0
        """Number of tokens whose u was recomputed."""
        self._block_bytes = 0
        """Number of bytes of blocks that wait."""

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Takes in the settings of the deployment."""
        self.finish()
        self._settings = settings

    def add(
        self, amplifier: str, block_bytes: int, fallback: bool, baseline: str, numbers: TokenNumbers
    ) -> None:
        """Takes in a token.

        Args:
            amplifier: Name of its amplifier.
            block_bytes: Length of its block.
            fallback: Whether the bytes are those of the fallback.
            baseline: Digest of the baseline that u refers to, if it refers to one.
            numbers: What its line says.
        """
        if baseline:
            self._rung.cannot_say("u that refers to a baseline, which is not here", numbers.place)
            amplifier = ""
        ideal = fallback and bool(self._settings.get("baseline_file"))
        stored = numbers.block is not None
        group = _Group(amplifier, block_bytes, ideal, stored)
        tokens = self._groups.setdefault(group, [])
        tokens.append(numbers)
        self._block_bytes += block_bytes if stored else 0
        if len(self._groups) > _MOST_GROUPS or self._block_bytes > _MOST_BLOCK_BYTES:
            self.finish()
        elif len(tokens) >= _BATCH:
            self._judge(group, self._groups.pop(group))

    def finish(self) -> None:
        """Judges the tokens that wait."""
        groups, self._groups, self._block_bytes = self._groups, {}, 0
        for group, tokens in groups.items():
            self._judge(group, tokens)

    def _judge(self, group: _Group, tokens: list[TokenNumbers]) -> None:
        size = group.block_bytes
        if not 0 < size < LARGEST_BLOCK:
            for token in tokens:
                self._rung.fail(token.place, f"a block of {size} bytes decides nothing")
            return
        possible = [token for token in tokens if _is_possible(token, size)]
        if len(possible) < len(tokens):
            for token in tokens:
                if not _is_possible(token, size):
                    self._rung.fail(
                        token.place,
                        f"no {size} bytes have the sum {token.sum} and {token.ones} one bits",
                    )
        if possible:
            self._recompute(group, possible)

    def _recompute(self, group: _Group, tokens: list[TokenNumbers]) -> None:
        if group.stored:
            tokens, blocks, counts = self._counted(group, tokens)
        else:
            blocks = np.broadcast_to(np.uint8(0), (len(tokens), group.block_bytes))
            counts = _Recorded(_column(tokens, "sum"), _column(tokens, "ones"))
        amplifier = self._amplifier(group)
        if amplifier is None:
            self._judge_form(group.amplifier, tokens)
        elif tokens:
            self._compare(group, amplifier, tokens, blocks, counts)

    def _counted(
        self, group: _Group, tokens: list[TokenNumbers]
    ) -> tuple[list[TokenNumbers], NDArray[np.uint8], BlockCounts]:
        """Counts blocks; returns the tokens whose counts are right, and their blocks."""
        data = b"".join(token.block or b"" for token in tokens)
        blocks = np.frombuffer(data, np.uint8).reshape(len(tokens), group.block_bytes)
        counts = BlockCounts(blocks)
        right = np.ones(len(tokens), dtype=np.bool_)
        for name, counted in (("sum", counts.sums), ("ones", counts.ones)):
            recorded = _column(tokens, name)
            for index in np.flatnonzero(recorded != counted).tolist():
                right[index] = False
                self._rung.fail(
                    tokens[index].place,
                    f"block_{name} is {int(recorded[index])} and that of its bytes is "
                    f"{int(counted[index])}",
                )
        if right.all():
            return tokens, blocks, counts
        blocks = blocks[right]
        kept = [token for token, is_right in zip(tokens, right.tolist(), strict=True) if is_right]
        return kept, blocks, BlockCounts(blocks)

    def _compare(
        self,
        group: _Group,
        amplifier: SignalAmplifier,
        tokens: list[TokenNumbers],
        blocks: NDArray[np.uint8],
        counts: BlockCounts,
    ) -> None:
        """Compares what *amplifier* makes of blocks with what the lines say."""
        try:
            result = amplifier.amplify(blocks, counts)
        except ConfigError as error:
            for token in tokens:
                self._rung.fail(token.place, str(error))
            return
        tolerance = 0.0 if group.amplifier in _TO_THE_BIT else TOLERANCE
        what = "the bytes" if group.stored else "the sum and ones"
        for name, computed in (
            ("u", result.u),
            ("statistic", result.statistic),
            ("lattice_step", np.broadcast_to(result.lattice_step, result.u.shape)),
        ):
            recorded = np.array([getattr(token, name) for token in tokens])
            off = ~(np.abs(recorded - computed) <= tolerance * np.maximum(1.0, np.abs(computed)))
            for index in np.flatnonzero(off).tolist():
                self._rung.fail(
                    tokens[index].place,
                    f"{name} is {float(recorded[index])!r} and {group.amplifier} makes "
                    f"{float(computed[index])!r} of {what} of the block",
                )
        self.recomputed += len(tokens)

    def _amplifier(self, group: _Group) -> SignalAmplifier | None:
        if group.amplifier == "bit_zscore":
            return BitZScoreAmplifier()
        if group.amplifier != "zscore_mean":
            of_bytes = _OF_BYTES.get(group.amplifier) if group.stored else None
            return of_bytes() if of_bytes is not None else None
        if group.ideal:
            return ZScoreMeanAmplifier()
        mean, deviation = (
            self._settings.get(name, usual)
            for name, usual in (("population_mean", BYTE_MEAN), ("population_std", BYTE_STD))
        )
        if not isinstance(mean, int | float) or not isinstance(deviation, int | float):
            return None
        # No other figures are those of bytes.
        if not (0 <= mean <= 255 and 0 < deviation <= 255):
            return None
        return ZScoreMeanAmplifier(mean, deviation)

    def _judge_form(self, amplifier: str, tokens: list[TokenNumbers]) -> None:
        """Judges what can be said without the block itself."""
        if not tokens:
            return
        form = _FORMS.get(amplifier)
        for token in tokens:
            if form is not None and not form(token):
                self._rung.fail(
                    token.place,
                    f"{amplifier} never makes u {token.u!r} with this statistic and step",
                )
        self._rung.cannot_say(
            f"u of {amplifier[:40]!r}, which needs the bytes of the block"
            if amplifier
            else "u of tokens without a named amplifier, or with a baseline",
            tokens[0].place,
            len(tokens),
        )


def _column(tokens: list[TokenNumbers], name: str) -> NDArray[np.intp]:
    return np.array([getattr(token, name) for token in tokens], dtype=np.intp)


def _is_possible(token: TokenNumbers, size: int) -> bool:
    """Returns whether *size* bytes can have this sum and this number of ones."""
    zeros = 8 * size - token.ones
    return 0 <= token.ones <= token.sum <= 255 * size - zeros


def _is_midpoint(token: TokenNumbers) -> bool:
    """Returns whether u is the middle of a cell whose width is the lattice step, 2**-K."""
    if not UNIFORM_STEP <= token.lattice_step <= 1.0:
        return False
    cells = token.u / token.lattice_step - 0.5
    return cells == round(cells)


_FORMS: Final[dict[str, Callable[[TokenNumbers], bool]]] = {
    "random_walk": _is_midpoint,
    "server": lambda token: token.statistic == token.u,
    "uniform53": lambda token: token.statistic == token.u,
}
"""What is true of amplifiers that need more than sum and ones."""
