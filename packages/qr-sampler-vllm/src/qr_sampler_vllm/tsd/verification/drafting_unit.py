# SPDX-License-Identifier: Apache-2.0
"""The sampling unit between proposer and verifier, whose failures cost drafts and nothing else."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from typing import NamedTuple

from qr_sampler.errors import QRSamplerError
from qr_sampler_tsd import SimTSU, TSUAdapter
from qr_sampler_tsd.errors import UnitError
from qr_sampler_tsd.law import HeadTailLaw
from qr_sampler_tsd.tsu import GuardedUnit
from qr_sampler_vllm.tsd.verification.step_uniforms import StepUniforms, Used

__all__ = ["DraftingUnit", "Drawn"]

logger = logging.getLogger("vllm.qr_sampler")


class Drawn(NamedTuple):
    """What became of one call of a unit."""

    token_id: int | None
    """The draft; ``None`` if the unit has failed."""
    used: Used | None
    """All numbers that it took; ``None`` if it took none."""


class DraftingUnit:
    """Draws drafts by a sampling unit, one at a time, each by numbers of its own.

    Where the unit fails nothing is drafted, and the log tells once of each kind of failure. The
    text stays what it is: a place without a draft is decided after its logits.

    Args:
        unit: The unit. What it raises is taken for its failure.
    """

    def __init__(self, unit: TSUAdapter | None = None) -> None:
        # Ours may sit on a device, too.
        self._unit = GuardedUnit(SimTSU() if unit is None else unit, "of the drafts")
        self._most_cells = 0
        self._told: set[str] = set()

    def budget(self, cells: int) -> int:
        """Returns how many numbers a draft may take; 0 if the unit does not say.

        Args:
            cells: K + 1 of the largest payload at hand. Larger ones that were seen before count,
                too, as the payloads after it are not known yet.
        """
        self._most_cells = max(self._most_cells, cells)
        return self._bound(self._most_cells)

    def _bound(self, cells: int) -> int:
        try:
            return self._unit.most_uniforms(cells)
        except QRSamplerError as error:
            self._tell(error)
            return 0

    def draw(self, law: HeadTailLaw, uniforms: StepUniforms) -> Drawn:
        """Returns a draft that follows *law*, with ``log q`` of it and the time that it took.

        Args:
            law: F(psi).
            uniforms: The numbers of the sequence that are left.
        """
        cells = law.ids.size + 1
        self._most_cells = max(self._most_cells, cells)
        if self._bound(cells) > uniforms.left:
            # Known before the draw: whether there is a draft must not depend on what it would be.
            return Drawn(None, None)
        first, began = len(uniforms.used), time.monotonic_ns()
        try:
            (token_id,) = self._unit.draw_tokens(law, 1, uniforms).tolist()
            used = uniforms.together(first)
            if used is None:
                raise UnitError(f"{self._unit.name} draws without a number of the source")
        except QRSamplerError as error:
            self._tell(error)
            return Drawn(None, uniforms.together(first))
        took, log_q = time.monotonic_ns() - began, math.log(law.prob_of(token_id))
        return Drawn(token_id, replace(used, log_q=log_q, unit_ns=took))

    def _tell(self, error: QRSamplerError) -> None:
        kind = type(error).__name__
        if kind not in self._told:
            self._told.add(kind)
            logger.error("%s; nothing is drafted where the sampling unit fails", error)
