# SPDX-License-Identifier: Apache-2.0
"""vLLM in this process, with the protocol that all engines meet."""

from __future__ import annotations

import dataclasses
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from qr_sampler import EngineFields
from qr_sampler.errors import ConfigError
from qr_sampler_cli.engines.arriving_records import ArrivingRecords
from qr_sampler_cli.engines.plugin import PLUGIN_PACKAGE
from qr_sampler_cli.engines.vllm_outputs import ArrivingTokens
from qr_sampler_cli.failures import import_package
from qr_sampler_cli.remedies import INSTALL_VLLM
from qr_sampler_cli.terminal.signals import interruption
from qr_sampler_local.engines import Generated, TokenListener
from qr_sampler_local.engines.tokenizers import TokenizedEngine

__all__ = ["ORDINARY_FIELDS", "VllmEngine"]

ORDINARY_FIELDS: Final = EngineFields(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0)
"""Neutral values for vLLM's own fields, so that the ``qr_*`` keys decide."""

REQUEST_KEY: Final = "qr_request_key"


class VllmEngine(TokenizedEngine):
    """One vLLM engine; a :class:`~qr_sampler_local.engines.LocalEngine`.

    Args:
        model: Name or directory of the model.
        arguments: Engine arguments; they take precedence over the defaults for a CPU.
        ledger_dir: Where the plugin writes its records, if tokens are handed over with them.

    Raises:
        MissingPackageError: When vLLM cannot be imported.
    """

    name = "vllm"

    def __init__(
        self, model: str, arguments: Mapping[str, Any], *, ledger_dir: Path | None = None
    ) -> None:
        self._vllm: Any = _package("vllm")
        self._platform: Any = _package("vllm.platforms").current_platform
        self._records = ArrivingRecords(ledger_dir)
        self._llm: Any = self._vllm.LLM(model=model, **{**self._defaults(), **arguments})
        self._closed = False

    @property
    def version(self) -> str:
        """Its version."""
        return str(self._vllm.__version__)

    @property
    def device(self) -> str:
        """What it computes on."""
        return str(self._platform.device_type)

    def _defaults(self) -> dict[str, Any]:
        # Bars of vLLM's own would break the line that shows the progress.
        defaults: dict[str, Any] = {"use_tqdm_on_load": False}
        if self._platform.is_cpu():
            defaults |= {"dtype": "float32", "enforce_eager": True}
            if os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0":
                defaults["distributed_executor_backend"] = "uni"
        return defaults

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the model."""
        return self._llm.get_tokenizer()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        options: Sequence[Mapping[str, object]],
        on_token: TokenListener | None = None,
        ignore_eos: bool = False,
    ) -> list[Generated]:
        """Returns what was emitted for each prompt; see the protocol.

        vLLM's own temperature and truncation are left neutral: the plugin applies its own before it
        forces the token. A token is handed to *on_token* when its record has arrived, which is when
        vLLM has continued from it.

        Args:
            prompts: The tokens of each prompt.
            max_tokens: Most tokens per prompt.
            options: The ``qr_*`` options of each prompt.
            on_token: Called with each token.
            ignore_eos: Whether every completion has as many, whatever tokens come.

        Raises:
            ConfigError: When an option is unknown or out of range, or a prompt is too long.
        """
        keyed = [{REQUEST_KEY: f"cli-{uuid.uuid4().hex[:12]}", **option} for option in options]
        keys = [str(option[REQUEST_KEY]) for option in keyed]
        arriving = ArrivingTokens(keys, self._records, on_token)
        engine = self._llm.llm_engine
        names: list[str] = []
        try:
            with interruption() as interrupted:
                for prompt, option in zip(prompts, keyed, strict=True):
                    names.append(uuid.uuid4().hex)
                    parameters = self._parameters(option, max_tokens, ignore_eos)
                    self._add(names[-1], prompt, parameters)
                while engine.has_unfinished_requests() and not interrupted():
                    for output in engine.step():
                        arriving.take(names.index(output.request_id), output.outputs[0])
                    self._hand_over(arriving, on_token)
        except KeyboardInterrupt:
            # Raised by the listener, or by a second Ctrl-C: nobody waits for what is left.
            on_token = None
        finally:
            if engine.has_unfinished_requests():
                engine.abort_request(names)
            self.write_records()
        return arriving.all(hand_over=on_token is not None)

    def _add(self, name: str, prompt: Sequence[int], parameters: Any) -> None:
        try:
            self._llm.llm_engine.add_request(name, {"prompt_token_ids": list(prompt)}, parameters)
        except _refusals() as error:
            raise ConfigError(f"vLLM refuses the request: {error}") from error

    def _hand_over(self, arriving: ArrivingTokens, on_token: TokenListener | None) -> None:
        if on_token is not None:
            self.write_records()
            arriving.hand_over()

    def _parameters(self, option: Mapping[str, object], max_tokens: int, ignore_eos: bool) -> Any:
        kinds: Any = _package("vllm.sampling_params").RequestOutputKind
        return self._vllm.SamplingParams(
            **dataclasses.asdict(ORDINARY_FIELDS),
            max_tokens=max_tokens,
            extra_args=dict(option),
            # Each output has the tokens since the last one.
            output_kind=kinds.DELTA,
            **({"ignore_eos": True} if ignore_eos else {}),
        )

    def write_records(self) -> None:
        """Writes the records of all tokens that were emitted, if the engine is in this process.

        An engine in a process of its own writes them within a fraction of a second.
        """
        _package(PLUGIN_PACKAGE).flush_records()

    def close(self) -> None:
        """Stops the engine, which writes the records that were still pending."""
        if self._closed:
            return
        self._closed = True
        self.write_records()
        self._llm.llm_engine.engine_core.shutdown()
        _package(PLUGIN_PACKAGE).end_records()


def _refusals() -> tuple[type[Exception], ...]:
    """Returns what vLLM raises for a request that its servers answer with a status of 4xx."""
    # Older versions raise ValueError, newer ones a class of their own that is none.
    exceptions = sys.modules.get("vllm.exceptions")
    return (ValueError, getattr(exceptions, "VLLMClientError", ValueError))


def _package(name: str) -> Any:
    return import_package(name, needed_for="--engine vllm", remedy=INSTALL_VLLM)
