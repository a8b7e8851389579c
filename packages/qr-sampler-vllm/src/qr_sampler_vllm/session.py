# SPDX-License-Identifier: Apache-2.0
"""What one engine samples with: settings, source, pipeline and journal."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from qr_sampler import (
    Record,
    Rows,
    SamplingPipeline,
    Settings,
    StepResult,
    check_components,
    configured_source,
)
from qr_sampler_vllm.journal import Journal
from qr_sampler_vllm.layout import check_layout
from qr_sampler_vllm.step import get_ready, pipeline_for, sample_rows

__all__ = ["EngineSession"]

logger = logging.getLogger("qr_sampler.vllm")


class EngineSession:
    """Sampling for one engine, independent of vLLM's model runner.

    Args:
        vllm_config: vLLM's ``VllmConfig``.
        runner: Name of the model runner, for the start-up message.

    Raises:
        ConfigError: When the layout of the engine or a setting cannot be served.
        PluginError: When the configured source or its fallback is unknown, contested or broken.
    """

    def __init__(self, vllm_config: Any, runner: str) -> None:
        check_layout(vllm_config)
        self.settings = Settings.load()
        check_components(self.settings, self.settings, prefix="QR_")
        source = configured_source(self.settings)
        self._source = source
        self._pipeline: SamplingPipeline | None = None
        self._journal = Journal(self.settings, source, str(vllm_config.model_config.model))
        get_ready(vllm_config.device_config.device_type)
        logger.info(
            "qr-sampler run %s on %s: source %s, fallback %s, amplifier %s, temperature %s",
            self._journal.run_id,
            runner,
            source.name,
            self.settings.fallback_mode,
            self.settings.signal_amplifier_type,
            self.settings.temperature_strategy,
        )

    def sample(self, logits: Any, lines: Sequence[int], rows: Rows) -> StepResult | None:
        """Selects and forces the tokens of *lines*.

        Arguments, result and errors are those of :func:`qr_sampler_vllm.step.sample_rows`.
        """
        if self._pipeline is None:
            # Only now is it known where the logits are.
            self._pipeline = pipeline_for(logits, self.settings, self._source)
        return sample_rows(self._pipeline, logits, lines, rows)

    def record(self, records: Iterable[Record]) -> None:
        """Keeps *records*."""
        self._journal.write(records)
