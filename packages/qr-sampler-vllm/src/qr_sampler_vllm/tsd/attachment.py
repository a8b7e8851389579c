# SPDX-License-Identifier: Apache-2.0
"""Replaces vLLM's sampling by verification with the entropy source."""

from __future__ import annotations

from typing import Any

from qr_sampler_tsd.gate import GatedUnit
from qr_sampler_vllm.engine.layout import most_rows
from qr_sampler_vllm.engine.session import EngineSession
from qr_sampler_vllm.runners.engines import check_not_loaded, register
from qr_sampler_vllm.status.run_directory import announce
from qr_sampler_vllm.tsd.drafter import TSDDrafter
from qr_sampler_vllm.tsd.sequences import Sequences
from qr_sampler_vllm.tsd.settings import TSDSettings
from qr_sampler_vllm.tsd.units import facts_of, unit_of
from qr_sampler_vllm.tsd.verification.canonical import Canonical
from qr_sampler_vllm.tsd.verification.exact_match import ExactMatch

__all__ = ["attach", "attach_speculator", "facts_of_deployment"]


def _mode(
    vllm_config: Any,
    settings: TSDSettings,
    session: EngineSession,
    sequences: Sequences,
    unit: GatedUnit | None,
) -> ExactMatch | Canonical:
    if unit is None:
        return ExactMatch(session)
    return Canonical(session, sequences, settings.verifier, most_rows(vllm_config), unit)


def _description(settings: TSDSettings) -> list[dict[str, str]]:
    """Returns what the ledger says of the proposer, which the drafter has loaded before."""
    from qr_sampler_tsd.proposers.named import described

    return described(settings.proposer or "")


def facts_of_deployment(vllm_config: Any) -> dict[str, Any]:
    """Returns what the genesis record tells of TSD under Model Runner V2.

    Args:
        vllm_config: vLLM's ``VllmConfig`` of an engine that has been checked.
    """
    settings = TSDSettings.load()
    described = {**settings.model_dump(mode="json"), "proposer": _description(settings)}
    return {"tsd": {**described, **facts_of(None)}}


def attach_speculator(vllm_config: Any, model_runner: Any) -> Any:
    """Makes *model_runner* draft with the proposer of the deployment, and returns what drafts.

    The logits processor verifies.

    Args:
        vllm_config: vLLM's ``VllmConfig`` of an engine that has been checked.
        model_runner: Its ``GPUModelRunner`` or ``CPUModelRunner`` (Model Runner V2).

    Raises:
        ConfigError: When there is no proposer for the model.
    """
    from qr_sampler_vllm.tsd.speculator import TSDSpeculator

    speculator = TSDSpeculator(vllm_config, model_runner.device, model_runner.req_states)
    model_runner.speculator = speculator
    return speculator


def attach(vllm_config: Any, model_runner: Any) -> None:
    """Makes *model_runner* choose every token with the entropy source.

    Args:
        vllm_config: vLLM's ``VllmConfig`` of an engine that has been checked.
        model_runner: Its ``GPUModelRunner`` or ``CPUModelRunner`` (Model Runner V1).

    Raises:
        ConfigError: When the layout of the engine or a setting is not supported.
        PluginError: When a configured source or its fallback is unknown, contested or broken.
    """
    from qr_sampler_vllm.tsd.samplers import DraftSampler, DraftVerifier

    check_not_loaded(vllm_config)
    drafter: TSDDrafter = model_runner.drafter
    settings = TSDSettings.load()
    unit = unit_of(settings)
    session = EngineSession(
        vllm_config,
        f"Model Runner V1 with TSD, {settings.mode}",
        {
            "tsd": {
                **settings.model_dump(mode="json"),
                "proposer": _description(settings),
                **facts_of(unit),
            }
        },
    )
    sequences = Sequences(vllm_config, session, model_runner)
    mode = _mode(vllm_config, settings, session, sequences, unit)
    drafter.bind(model_runner, sequences, mode)
    model_runner.sampler = DraftSampler(model_runner, sequences, mode)
    model_runner.rejection_sampler = DraftVerifier(model_runner.sampler)
    register(vllm_config, sequences, model_runner)
    announce(session.settings.model_dump(mode="json"))
