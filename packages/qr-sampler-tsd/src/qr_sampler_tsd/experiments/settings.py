# SPDX-License-Identifier: Apache-2.0
"""What all experiments can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.craft import craft_psi, craft_relative_psi
from qr_sampler_tsd.errors import ExperimentError
from qr_sampler_tsd.psi import PsiTopK
from qr_sampler_tsd.psi_relative import PsiRelative

__all__ = ["ExperimentSettings", "Verifier"]

Verifier: TypeAlias = Literal["token", "block", "k_seq"]
"""A rule of :mod:`qr_sampler_tsd.verification`."""

VERIFIERS = ("token", "block", "k_seq")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentSettings:
    """Settings of the proposer, the verifier and the run.

    Raises:
        ExperimentError: When a value is out of range, or two exclude each other.
    """

    k: int = 64
    """Tokens of the head."""
    tau: float = 1.0
    """Temperature of the scores."""
    epsilon: float | None = None
    """Floor of payload version 1; ``None`` gives the tail its true mass."""
    psi_version: int = 1
    """1 or 2."""
    length: int = 1
    """Drafts per pass, L; for K-SEQ they are all for the same position."""
    verifier: Verifier = "token"
    """The rule that judges."""
    batch: int = 1
    """Sequences side by side, B."""
    steps: int = 20_000
    """Steps; each is one pass for each of the B sequences."""
    log_every: int = 1
    """Every how many steps an event is written."""
    dense_seconds: float = 0.5
    """How long the dense sampler is measured for comparison; 0 leaves the comparison out."""
    seed: int = 7
    """Seed of the target."""

    def __post_init__(self) -> None:
        """Checks what the payload does not."""
        for name in ("length", "batch", "steps", "log_every"):
            if getattr(self, name) < 1:
                raise ExperimentError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("dense_seconds", "seed"):
            if not getattr(self, name) >= 0:
                raise ExperimentError(f"{name}={getattr(self, name)} must not be negative")
        if self.verifier not in VERIFIERS:
            raise ExperimentError(
                f"verifier={self.verifier!r} must be one of {', '.join(VERIFIERS)}"
            )
        if self.psi_version not in (1, 2):
            raise ExperimentError(f"psi_version={self.psi_version} must be 1 or 2")
        if self.psi_version == 2 and self.epsilon is not None:
            raise ExperimentError(
                "payload version 2 has no epsilon; leave it out, or use version 1"
            )

    def psi_for(self, p: FloatArray) -> PsiTopK | PsiRelative:
        """Returns the payload of the oracle for the distribution *p*.

        Raises:
            PsiError: When a value is out of range.
        """
        if self.psi_version == 2:
            return craft_relative_psi(p, self.k, self.tau)
        return craft_psi(p, self.k, self.tau, self.epsilon)
