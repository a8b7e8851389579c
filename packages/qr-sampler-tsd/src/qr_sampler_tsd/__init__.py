# SPDX-License-Identifier: Apache-2.0
"""Thermodynamic speculative decoding: compact proposals, sampling units, exact verification.

The names to start from:

* :class:`PsiTopK` and :class:`PsiRelative` are payloads; :class:`HeadTailLaw` is the distribution
  F(psi).
* :class:`TSUAdapter` draws from it, once :mod:`qr_sampler_tsd.gate` has found that it does.
* :func:`accept_correct`, :func:`verify_tokens` and :func:`verify_block` keep the text exact.
* :class:`Proposer` guesses the next token.
* :class:`UniformSource` supplies every random number, :class:`EntropyUniforms` from any source of
  qr-sampler.
"""

from __future__ import annotations

from importlib.metadata import version as _version

from qr_sampler_tsd.craft import craft_psi, craft_relative_psi
from qr_sampler_tsd.errors import PsiError, TSDError, UniformsExhaustedError
from qr_sampler_tsd.law import HeadTailLaw, Law
from qr_sampler_tsd.proposers import Proposer
from qr_sampler_tsd.psi import PsiTopK
from qr_sampler_tsd.psi_fields import Psi
from qr_sampler_tsd.psi_relative import PsiRelative
from qr_sampler_tsd.tsu import SimTSU, TSUAdapter
from qr_sampler_tsd.uniforms import (
    EntropyUniforms,
    RecordedUniforms,
    RecordingUniforms,
    Role,
    SeededUniforms,
    UniformDraw,
    UniformSource,
)
from qr_sampler_tsd.verification import Verdict, accept_correct, verify_block, verify_tokens

__version__ = _version("qr-sampler-tsd")

__all__ = [
    "EntropyUniforms",
    "HeadTailLaw",
    "Law",
    "Proposer",
    "Psi",
    "PsiError",
    "PsiRelative",
    "PsiTopK",
    "RecordedUniforms",
    "RecordingUniforms",
    "Role",
    "SeededUniforms",
    "SimTSU",
    "TSDError",
    "TSUAdapter",
    "UniformDraw",
    "UniformSource",
    "UniformsExhaustedError",
    "Verdict",
    "accept_correct",
    "craft_psi",
    "craft_relative_psi",
    "verify_block",
    "verify_tokens",
]
