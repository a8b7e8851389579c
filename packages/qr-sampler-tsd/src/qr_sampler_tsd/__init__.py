# SPDX-License-Identifier: Apache-2.0
"""Thermodynamic speculative decoding: compact proposals, sampling units, exact verification.

The names to start from:

* :class:`PsiTopK` and :class:`PsiRelative` are payloads; :class:`HeadTailLaw` is the law F(psi).
* :class:`UniformSource` supplies every random number, :class:`EntropyUniforms` from any source of
  qr-sampler.
"""

from __future__ import annotations

from importlib.metadata import version as _version

from qr_sampler_tsd.craft import craft_psi, craft_relative_psi
from qr_sampler_tsd.errors import PsiError, TSDError, UniformsExhaustedError
from qr_sampler_tsd.law import HeadTailLaw, Law
from qr_sampler_tsd.psi import PsiTopK
from qr_sampler_tsd.psi_fields import Psi
from qr_sampler_tsd.psi_relative import PsiRelative
from qr_sampler_tsd.uniforms import (
    EntropyUniforms,
    RecordedUniforms,
    RecordingUniforms,
    Role,
    SeededUniforms,
    UniformDraw,
    UniformSource,
)

__version__ = _version("qr-sampler-tsd")

__all__ = [
    "EntropyUniforms",
    "HeadTailLaw",
    "Law",
    "Psi",
    "PsiError",
    "PsiRelative",
    "PsiTopK",
    "RecordedUniforms",
    "RecordingUniforms",
    "Role",
    "SeededUniforms",
    "TSDError",
    "UniformDraw",
    "UniformSource",
    "UniformsExhaustedError",
    "craft_psi",
    "craft_relative_psi",
]
