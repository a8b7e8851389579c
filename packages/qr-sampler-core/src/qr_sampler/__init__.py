# SPDX-License-Identifier: Apache-2.0
"""Bring your own physical randomness to LLM sampling: contracts, mathematics and records.

The names to start from:

* :class:`EntropySource` is what a supplier of randomness implements.
* :class:`SamplingPipeline` turns logits and entropy into tokens.
* :class:`Settings` configures a deployment, :func:`resolve_request` one request.
* :class:`TokenSamplingRecord` is what remains of every token.
"""

from __future__ import annotations

from importlib.metadata import version as _version

from qr_sampler.admission.component_checks import check_components
from qr_sampler.admission.overrides import EngineFields, RequestOptions, resolve_request
from qr_sampler.amplification import (
    AmplificationResult,
    Baseline,
    BitZScoreAmplifier,
    BlockCounts,
    ECDFAmplifier,
    ExactBitsAmplifier,
    ExactSumAmplifier,
    RandomWalkAmplifier,
    Resolution,
    SignalAmplifier,
    Uniform53Amplifier,
    ZScoreMeanAmplifier,
    measure_baseline,
)
from qr_sampler.components.amplifiers import AMPLIFIERS
from qr_sampler.components.failure_policy import (
    END_REQUEST,
    RAISE_ERROR,
    configured_source,
    configured_sources,
)
from qr_sampler.components.registry import Plugin, Registry
from qr_sampler.components.sources import ENTROPY_SOURCES, create_source
from qr_sampler.components.strategies import TEMPERATURE_STRATEGIES
from qr_sampler.diagnostics import SamplingLogger
from qr_sampler.entropy import (
    DroppedBytes,
    EntropyDraw,
    EntropySource,
    FallbackEntropySource,
    GuardedSource,
    JitClass,
    Origin,
    SourceLimits,
    SourceStatus,
)
from qr_sampler.errors import (
    ComponentError,
    ConfigError,
    EntropyUnavailableError,
    PluginConflictError,
    PluginError,
    PluginLoadError,
    QRSamplerError,
    UnknownPluginError,
)
from qr_sampler.records import (
    BypassRecord,
    DiscardRecord,
    EmissionRecord,
    ForcedRecord,
    GapRecord,
    GenesisRecord,
    Record,
    TokenSamplingRecord,
    UndecidedRecord,
)
from qr_sampler.records.accounting import (
    bypass_record,
    discard_record,
    dropped_record,
    token_record,
)
from qr_sampler.records.ledger import JsonLinesSink, MemorySink, RecordSink
from qr_sampler.rows import Rows
from qr_sampler.sampling.commitment import RowContext, link_digest, row_digest, step_commitment
from qr_sampler.sampling.pipeline import SamplingPipeline, StepResult
from qr_sampler.sampling.planner import StepPlan, StepPlanner
from qr_sampler.selection import (
    FastSelector,
    Measurement,
    ReferenceSelector,
    SelectionResult,
    Selector,
)
from qr_sampler.settings import SamplingParameters, Settings
from qr_sampler.temperature import (
    STATISTICS_STEP,
    DynatempTemperatureStrategy,
    EDTPaperTemperatureStrategy,
    EDTTemperatureStrategy,
    FixedTemperatureStrategy,
    LogitStatistics,
    RunningMean,
    TemperatureResult,
    TemperatureStrategy,
    VarentropyTemperatureStrategy,
)

__version__ = _version("qr-sampler-core")

__all__ = [
    "AMPLIFIERS",
    "END_REQUEST",
    "ENTROPY_SOURCES",
    "RAISE_ERROR",
    "STATISTICS_STEP",
    "TEMPERATURE_STRATEGIES",
    "AmplificationResult",
    "Baseline",
    "BitZScoreAmplifier",
    "BlockCounts",
    "BypassRecord",
    "ComponentError",
    "ConfigError",
    "DiscardRecord",
    "DroppedBytes",
    "DynatempTemperatureStrategy",
    "ECDFAmplifier",
    "EDTPaperTemperatureStrategy",
    "EDTTemperatureStrategy",
    "EmissionRecord",
    "EngineFields",
    "EntropyDraw",
    "EntropySource",
    "EntropyUnavailableError",
    "ExactBitsAmplifier",
    "ExactSumAmplifier",
    "FallbackEntropySource",
    "FastSelector",
    "FixedTemperatureStrategy",
    "ForcedRecord",
    "GapRecord",
    "GenesisRecord",
    "GuardedSource",
    "JitClass",
    "JsonLinesSink",
    "LogitStatistics",
    "Measurement",
    "MemorySink",
    "Origin",
    "Plugin",
    "PluginConflictError",
    "PluginError",
    "PluginLoadError",
    "QRSamplerError",
    "RandomWalkAmplifier",
    "Record",
    "RecordSink",
    "ReferenceSelector",
    "Registry",
    "RequestOptions",
    "Resolution",
    "RowContext",
    "Rows",
    "RunningMean",
    "SamplingLogger",
    "SamplingParameters",
    "SamplingPipeline",
    "SelectionResult",
    "Selector",
    "Settings",
    "SignalAmplifier",
    "SourceLimits",
    "SourceStatus",
    "StepPlan",
    "StepPlanner",
    "StepResult",
    "TemperatureResult",
    "TemperatureStrategy",
    "TokenSamplingRecord",
    "UndecidedRecord",
    "Uniform53Amplifier",
    "UnknownPluginError",
    "VarentropyTemperatureStrategy",
    "ZScoreMeanAmplifier",
    "bypass_record",
    "check_components",
    "configured_source",
    "configured_sources",
    "create_source",
    "discard_record",
    "dropped_record",
    "link_digest",
    "measure_baseline",
    "resolve_request",
    "row_digest",
    "step_commitment",
    "token_record",
]
