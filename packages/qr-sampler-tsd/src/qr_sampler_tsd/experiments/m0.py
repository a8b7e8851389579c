# SPDX-License-Identifier: Apache-2.0
"""M0, the smoke test: a fixed distribution without context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qr_sampler_tsd.errors import ExperimentError
from qr_sampler_tsd.experiments.results import ExperimentResult
from qr_sampler_tsd.experiments.runner import Equipment, run_experiment
from qr_sampler_tsd.experiments.settings import ExperimentSettings
from qr_sampler_tsd.targets import CategoricalTarget, make_p, make_p_zipf

__all__ = ["M0Settings", "run_m0"]


@dataclass(frozen=True, slots=True, kw_only=True)
class M0Settings(ExperimentSettings):
    """Settings of M0.

    Raises:
        ExperimentError: When a value is out of range.
    """

    vocab_size: int = 1000
    """Number of tokens, V."""
    law: Literal["dirichlet", "zipf"] = "dirichlet"
    """The family of the target."""
    alpha: float = 1.1
    """Exponent of Zipf's law."""

    def __post_init__(self) -> None:
        """Checks the family; the target checks the rest."""
        # Without arguments super() finds no class here: slots make a new one.
        ExperimentSettings.__post_init__(self)
        if self.law not in ("dirichlet", "zipf"):
            raise ExperimentError(f"law={self.law!r} must be dirichlet or zipf")

    def target(self) -> CategoricalTarget:
        """Returns the target.

        Raises:
            TargetError: When a value is out of range.
        """
        if self.law == "zipf":
            return CategoricalTarget(make_p_zipf(self.vocab_size, self.alpha, self.seed)[0])
        return CategoricalTarget(make_p(self.vocab_size, self.seed)[0])


def run_m0(settings: M0Settings, equipment: Equipment) -> ExperimentResult:
    """Runs M0.

    Args:
        settings: Of the run.
        equipment: Uniforms, unit and where reports go.

    Raises:
        TargetError: When the settings make no target.
        PsiError: When they make no payload.
    """
    return run_experiment("M0", settings.target(), settings, equipment)
