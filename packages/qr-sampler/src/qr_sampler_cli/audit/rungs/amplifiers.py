# SPDX-License-Identifier: Apache-2.0
"""Rung 4, u: what amplifiers make of the sums and counts that the records have of every block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qr_sampler import BitZScoreAmplifier, BlockCounts, SignalAmplifier, ZScoreMeanAmplifier
from qr_sampler.amplification.control import UNIFORM_STEP
from qr_sampler.settings import BYTE_MEAN, BYTE_STD
from qr_sampler_cli.audit.findings import Rung

__all__ = ["TOLERANCE", "AmplifiedTokens", "TokenNumbers"]

TOLERANCE: Final = 1e-12
"""Largest difference of a recomputed number, relative where it is larger than 1."""

_BATCH: Final = 4_096
_MOST_GROUPS: Final = 256

_LARGEST_BLOCK: Final = 2**24


class TokenNumbers(NamedTuple):
    """What a token line says of its block and of u."""

    sum: int
    ones: int
    u: float
    statistic: float
    lattice_step: float
    place: int


class _Group(NamedTuple):
    """What tokens have in common that are recomputed together."""

    amplifier: str
    block_bytes: int
    ideal: bool
    """Whether the figures are those of ideal bytes, whatever the deployment has set."""


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
        group = _Group(amplifier, block_bytes, ideal)
        tokens = self._groups.setdefault(group, [])
        tokens.append(numbers)
        if len(tokens) >= _BATCH:
            self._judge(group, self._groups.pop(group))
        elif len(self._groups) > _MOST_GROUPS:
            self.finish()

    def finish(self) -> None:
        """Judges the tokens that wait."""
        groups, self._groups = self._groups, {}
        for group, tokens in groups.items():
            self._judge(group, tokens)

    def _judge(self, group: _Group, tokens: list[TokenNumbers]) -> None:
        size = group.block_bytes
        if not 0 < size < _LARGEST_BLOCK:
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
        amplifier = self._amplifier(group)
        if amplifier is None:
            self._judge_form(group.amplifier, tokens)
            return
        sums = np.array([token.sum for token in tokens], dtype=np.intp)
        ones = np.array([token.ones for token in tokens], dtype=np.intp)
        blocks = np.broadcast_to(np.uint8(0), (len(tokens), group.block_bytes))
        result = amplifier.amplify(blocks, _Recorded(sums, ones))
        for name, computed in (
            ("u", result.u),
            ("statistic", result.statistic),
            ("lattice_step", np.broadcast_to(result.lattice_step, sums.shape)),
        ):
            recorded = np.array([getattr(token, name) for token in tokens])
            off = ~(np.abs(recorded - computed) <= TOLERANCE * np.maximum(1.0, np.abs(computed)))
            for index in np.flatnonzero(off).tolist():
                self._rung.fail(
                    tokens[index].place,
                    f"{name} is {float(recorded[index])!r} and {group.amplifier} makes "
                    f"{float(computed[index])!r} of the sum and ones of the block",
                )
        self.recomputed += len(tokens)

    def _amplifier(self, group: _Group) -> SignalAmplifier | None:
        if group.amplifier == "bit_zscore":
            return BitZScoreAmplifier()
        if group.amplifier != "zscore_mean":
            return None
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
