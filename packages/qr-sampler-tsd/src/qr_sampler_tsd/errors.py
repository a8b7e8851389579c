# SPDX-License-Identifier: Apache-2.0
"""Errors of thermodynamic speculative decoding."""

from __future__ import annotations

from qr_sampler.errors import QRSamplerError

__all__ = [
    "ExperimentError",
    "GateError",
    "MissingExtraError",
    "MixingError",
    "ProposerError",
    "ProposerFileError",
    "PsiError",
    "TSDError",
    "TargetError",
    "UniformsExhaustedError",
    "UnitError",
    "VerificationError",
]


class TSDError(QRSamplerError):
    """Root of every error that this package raises on purpose."""


class PsiError(TSDError, ValueError):
    """A payload, a mask or what they are made of is malformed."""


class ProposerError(TSDError, ValueError):
    """A proposer, what it is made of or what it is trained on is malformed."""


class ProposerFileError(TSDError, ValueError):
    """A file does not hold a proposer that this version reads."""


class TargetError(TSDError, ValueError):
    """A target distribution, or what it is made of, is malformed."""


class VerificationError(TSDError, ValueError):
    """Target rows, proposals and drafts do not fit together."""


class ExperimentError(TSDError, ValueError):
    """An experiment is asked for something that it cannot do."""


class UniformsExhaustedError(TSDError, RuntimeError):
    """A recording holds fewer uniforms than are asked of it, or of another role."""


class MixingError(TSDError, ValueError):
    """A Markov chain is farther from its distribution after its sweeps than its user allows."""


class UnitError(TSDError, ValueError):
    """A sampling unit is asked for by a name or an option that there is not."""


class GateError(TSDError, RuntimeError):
    """A sampling unit has not passed the gate."""


class MissingExtraError(TSDError, ImportError):
    """An optional dependency of this package is not installed."""
