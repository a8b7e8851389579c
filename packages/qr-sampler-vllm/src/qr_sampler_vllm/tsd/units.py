# SPDX-License-Identifier: Apache-2.0
"""The sampling unit of a deployment, which passes its gate before it draws a draft."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from qr_sampler import ConfigError
from qr_sampler.errors import QRSamplerError
from qr_sampler_tsd import SeededUniforms
from qr_sampler_tsd.gate import GatedUnit, GateReport, run_gate
from qr_sampler_tsd.tsu import GuardedUnit, named_unit
from qr_sampler_vllm.tsd.settings import TSDSettings

__all__ = ["facts_of", "unit_of"]

logger = logging.getLogger("vllm.qr_sampler")

_GATE_SEED: Final = 20_000
"""Of the uniforms of the gate: what the deployment's source delivers is for the text."""

_GATE_SECONDS: Final = 120.0

_passed: Final[dict[str, GateReport]] = {}
"""By what a unit is configured as, its report, once it has passed in this process."""


def unit_of(settings: TSDSettings) -> GatedUnit | None:
    """Returns the unit that draws the drafts of a deployment; ``None`` where nothing draws them.

    Raises:
        ConfigError: When there is no such unit, it does not pass its gate, or the mode draws no
            drafts and a unit is set.
    """
    spec = settings.unit
    if settings.mode != "canonical":
        _refuse_idle(settings)
        return None
    try:
        unit = GuardedUnit(named_unit(spec), spec)
        if spec not in _passed:
            _passed[spec] = _tested(unit)
        return GatedUnit(unit, _passed[spec])
    except QRSamplerError as error:
        raise ConfigError(f"QR_TSD_UNIT={spec}: {error}") from error


def facts_of(unit: GatedUnit | None) -> dict[str, Any]:
    """Returns what the genesis record tells of a unit: its name and how it did at the gate."""
    if unit is None:
        return {"unit": None}
    return {"unit": unit.name, "gate": unit.report.figures}


def _refuse_idle(settings: TSDSettings) -> None:
    default = type(settings).model_fields["unit"].default
    if settings.unit != default:
        raise ConfigError(
            f"QR_TSD_UNIT={settings.unit} would draw nothing: QR_TSD_MODE={settings.mode} drafts "
            "the most probable tokens; set QR_TSD_MODE=canonical, or leave QR_TSD_UNIT out"
        )


def _tested(unit: GuardedUnit) -> GateReport:
    began = time.monotonic()
    report = run_gate(unit, SeededUniforms(_GATE_SEED), seconds=_GATE_SECONDS)
    logger.info("%s, in %.1f s", report, time.monotonic() - began)
    return report
