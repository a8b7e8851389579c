# SPDX-License-Identifier: Apache-2.0
"""From tokens to a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

import numpy as np

from qr_sampler.errors import ConfigError
from qr_sampler_lab.report.adding.arm import Arm
from qr_sampler_lab.report.adding.arms import ArmKey, split
from qr_sampler_lab.report.adding.scores import Contrast
from qr_sampler_lab.report.adding.sources import SourceNetwork
from qr_sampler_lab.tables.columns import NOT_EMITTED, TokenChunk
from qr_sampler_lab.tables.errors import TablesError

__all__ = ["Options", "TokenAnalysis"]

MOST_ARMS: Final = 32
"""Largest number of arms, each of which takes some 45 MB."""

MOST_PAIRED: Final = 6
"""Largest number of arms all of which are compared with each other."""

_LARGEST: Final = 1e12
_LONGEST_BLOCK: Final = 2**24

_PIECE: Final = 2**13
"""Tokens that are added at once: more, and a linear algebra library would start threads that cost
more than they gain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How tokens are analysed. Fixed before the data are seen, or it is no test."""

    by: tuple[str, ...] = ("condition", "source")
    """Columns that tokens are split into arms by."""
    session: str = ""
    """Column that sessions are told apart by; empty for trial where there is one, else run."""
    control: str = ""
    """Name of the arm that the others are compared with; empty for all pairs."""
    tau: float = 0.1
    """Scale of the shifts that e-processes bet on, in standard deviations of one token."""
    alpha: float = 0.05
    """Their error probability."""
    block_tokens: int = 1_000
    """Tokens per block of the block means."""
    baselines: Mapping[str, int] = field(default_factory=dict)
    """By digest of a baseline, its number of blocks."""
    exploratory: bool = False
    """Whether there are tests that only suggest hypotheses."""


class TokenAnalysis:
    """Adds up tokens, chunk by chunk.

    Args:
        options: How.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.arms: dict[ArmKey, Arm] = {}
        """The arms, in the order in which they came."""
        self.session = options.session
        """Column of the sessions."""
        self.network = SourceNetwork(options.block_tokens)
        """Of the sources that scores are from whose law is known."""
        self.not_emitted = 0
        """Tokens that were taken back, and are left out."""

    def add_all(self, chunks: Iterable[TokenChunk]) -> None:
        """Adds all tokens of a reading.

        Raises:
            TablesError: When there are too many arms, or numbers that no statistic can take.
        """
        try:
            for chunk in chunks:
                for start in range(0, len(chunk), _PIECE):
                    self.add(chunk[start : start + _PIECE])
        except ConfigError as error:
            raise TablesError(f"the tokens cannot be analysed: {error}") from error

    def add(self, chunk: TokenChunk) -> None:
        """Adds a chunk in the order of time."""
        taken_back = chunk.emitted == NOT_EMITTED
        if taken_back.any():
            self.not_emitted += int(taken_back.sum())
            chunk = chunk[~taken_back]
        if not len(chunk):
            return
        self._judge(chunk)
        if not self.session:
            trials = chunk.trial.names[: int(chunk.trial.codes.max()) + 1]
            self.session = "trial" if any(name is not None for name in trials) else "run"
        scores = np.full(len(chunk), np.nan)
        for key, indices in split(chunk, self.options.by):
            tokens = chunk if len(indices) == len(chunk) else chunk[indices]
            arm = self.arms.get(key) or self._begin(key, tokens)
            arm.add(tokens, self.session)
            if not (key.baseline or key.drafted):
                scores[indices] = arm.scores(tokens)
        known = np.isfinite(scores)
        self.network.add(scores[known], chunk.source[known])

    def _judge(self, chunk: TokenChunk) -> None:
        """Refuses numbers that no amplifier makes, with which sums would overflow."""
        for name, largest in (("statistic", _LARGEST), ("block_bytes", _LONGEST_BLOCK)):
            column = getattr(chunk, name)
            at = int(np.argmax(np.abs(column)))
            if abs(column[at]) > largest:
                raise TablesError(
                    f"a token of run {chunk.run[at : at + 1].texts()[0]} has {name}={column[at]}; "
                    f"{largest:g} is the most that can be analysed"
                )

    def _begin(self, key: ArmKey, tokens: TokenChunk) -> Arm:
        if len(self.arms) >= MOST_ARMS:
            raise TablesError(
                f"there are more than {MOST_ARMS} arms when tokens are split by "
                f"{', '.join(self.options.by)}, amplifier and block length; split by less: --by"
            )
        steps = tokens.lattice_step[np.isfinite(tokens.lattice_step)]
        arm = self.arms[key] = Arm(
            key,
            tau=self.options.tau,
            alpha=self.options.alpha,
            baseline_blocks=self.options.baselines.get(key.baseline),
            lattice_step=float(steps.max()) if len(steps) else math.nan,
            block_tokens=self.options.block_tokens,
            exploratory=self.options.exploratory,
        )
        return arm

    def contrasts(self) -> dict[tuple[ArmKey, ArmKey], Contrast]:
        """Returns every arm beside its control, if what they share cancels and nothing else is.

        Scores of different baselines have different errors. Those of accepted drafts may scatter
        more widely than a bet on them allows.
        """
        tau, alpha = self.options.tau, self.options.alpha
        return {
            (arm, control): Contrast(
                self.arms[arm].score_file, self.arms[control].score_file, tau=tau, alpha=alpha
            )
            for arm, control in self.pairs()
            if arm.baseline == control.baseline and not (arm.drafted or control.drafted)
        }

    def close(self) -> None:
        """Gives the files up that scores are in."""
        for arm in self.arms.values():
            arm.score_file.close()

    def names(self) -> dict[ArmKey, str]:
        """Returns the names of the arms, in their alphabetical order."""
        named = {key: key.name(self.options.by, self.arms) for key in self.arms}
        return dict(sorted(named.items(), key=lambda item: item[1]))

    def pairs(self) -> Sequence[tuple[ArmKey, ArmKey]]:
        """Returns the arms that are compared, each with its control.

        All pairs of up to six arms if no control is named, the later in the alphabet being the
        control; none of more.
        """
        names = self.names()
        if self.options.control:
            return self._with_control(names)
        return list(combinations(names, 2)) if len(names) <= MOST_PAIRED else []

    def _with_control(self, names: Mapping[ArmKey, str]) -> list[tuple[ArmKey, ArmKey]]:
        wanted = self.options.control
        controls = [key for key, name in names.items() if wanted in (name, *key.texts)]
        if len(controls) != 1:
            raise TablesError(
                f"the control {wanted!r} is the name of {len(controls)} arms; use one of "
                + "; ".join(names.values())
            )
        return [(key, controls[0]) for key in names if key != controls[0]]
