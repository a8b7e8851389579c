# SPDX-License-Identifier: Apache-2.0
"""What a sampling unit of another project, or a device behind one of ours, may do to its caller."""

from __future__ import annotations

from typing import Final, NoReturn

import numpy as np

from qr_sampler.errors import QRSamplerError
from qr_sampler.foreign import component_failure, plain_text
from qr_sampler_tsd._typing import TokenArray
from qr_sampler_tsd.law import HeadTailLaw
from qr_sampler_tsd.psi_fields import Psi
from qr_sampler_tsd.tsu.adapter import TSUAdapter
from qr_sampler_tsd.uniforms import UniformSource

__all__ = ["MOST_UNIFORMS", "GuardedUnit"]

MOST_UNIFORMS: Final = 2**16
"""Uniforms that a unit may take for one draw."""


class GuardedUnit(TSUAdapter):
    """A unit whose failures are errors of this package, and whose draws are tokens of the payload.

    ``log_q`` is that of F(psi), whatever the unit reports.

    Args:
        unit: The unit.
        called: What it is configured as; its own name names it in reports.

    Raises:
        ComponentError: When it cannot say its name.
    """

    def __init__(self, unit: TSUAdapter, called: str) -> None:
        self._unit, self._called = unit, called
        try:
            self._name = plain_text(unit.name) or plain_text(called)
        # Whatever the unit raises, its caller is told in one way.
        except BaseException as error:
            self._fail(error)

    @property
    def name(self) -> str:
        """The name of the unit."""
        return self._name

    def law(self, psi: Psi) -> HeadTailLaw | None:
        """Returns the distribution that the unit gives.

        Raises:
            ComponentError: When it fails, or gives something else.
        """
        try:
            law = self._unit.law(psi)
            if not isinstance(law, HeadTailLaw | None):
                raise TypeError(f"law() returned {type(law).__name__}")
        except QRSamplerError:
            raise
        # As above.
        except BaseException as error:
            self._fail(error)
        return law

    def most_uniforms(self, cells: int) -> int:
        """Returns the bound of the unit, at least 1 and at most :data:`MOST_UNIFORMS`.

        Raises:
            ComponentError: When it fails, or is out of range.
        """
        try:
            most = self._unit.most_uniforms(cells)
            if type(most) is not int or not 1 <= most <= MOST_UNIFORMS:
                raise ValueError(
                    f"most_uniforms({cells}) is {plain_text(most)}; it must be an int from 1 to "
                    f"{MOST_UNIFORMS}"
                )
        except QRSamplerError:
            raise
        # As above.
        except BaseException as error:
            self._fail(error)
        return most

    def draw_tokens(self, law: HeadTailLaw, batch_size: int, uniforms: UniformSource) -> TokenArray:
        """Returns *batch_size* draws, see :class:`TSUAdapter`.

        Raises:
            ComponentError: When the unit fails, or what it returns are no such draws.
        """
        try:
            return _checked(self._unit.draw_tokens(law, batch_size, uniforms), law, batch_size)
        except QRSamplerError:
            raise
        # As above.
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> NoReturn:
        raise component_failure("sampling unit", self._called, error) from error


def _checked(drawn: object, law: HeadTailLaw, batch_size: int) -> TokenArray:
    if (
        type(drawn) is not np.ndarray
        or drawn.shape != (batch_size,)
        or drawn.dtype.kind not in "iu"
    ):
        raise TypeError(
            f"draw_tokens() has to return an array of {batch_size} integers, not "
            f"{type(drawn).__name__} {plain_text(getattr(drawn, 'shape', ''))}"
        )
    tokens: TokenArray = drawn.astype(np.int64)
    possible = (tokens >= 0) & (tokens < law.vocab_size)
    possible[possible] = law.probs_of(tokens[possible]) > 0
    if not possible.all():
        raise ValueError(f"it drew the token {tokens[~possible][0]}, which has no probability")
    return tokens
