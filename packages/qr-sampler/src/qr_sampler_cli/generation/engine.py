# SPDX-License-Identifier: Apache-2.0
"""vLLM in this process, started and stopped for one run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Final

from qr_sampler import EngineFields
from qr_sampler.errors import QRSamplerError
from qr_sampler_cli.failures import EngineError, MissingPackageError, import_package
from qr_sampler_cli.remedies import INSTALL_VLLM, from_clone

__all__ = ["ORDINARY_FIELDS", "Engine", "engine_failures", "require_plugin"]

PLUGIN_GROUP: Final = "vllm.logits_processors"
PLUGIN_DISTRIBUTION: Final = "qr-sampler-vllm"
PLUGIN_PACKAGE: Final = "qr_sampler_vllm"

ORDINARY_FIELDS: Final = EngineFields(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0)
"""Neutral values for vLLM's own fields, so that the ``qr_*`` keys decide."""


def require_plugin() -> None:
    """Checks that vLLM will find the plugin.

    Raises:
        MissingPackageError: When no installed distribution offers it to vLLM.
    """
    offered = (point.module for point in entry_points(group=PLUGIN_GROUP))
    if not any(module.partition(".")[0] == PLUGIN_PACKAGE for module in offered):
        raise MissingPackageError(
            "generate needs the plugin of qr-sampler-vllm, which is not installed, so vLLM would "
            f"choose the tokens itself; install it {from_clone(PLUGIN_DISTRIBUTION)}"
        )


@contextlib.contextmanager
def engine_failures(doing: str, *, verbose: bool) -> Iterator[None]:
    """Turns whatever vLLM raises while *doing* something into an :class:`EngineError`.

    Args:
        doing: What is being attempted.
        verbose: Whether the traceback is shown, too.

    Raises:
        EngineError: When the block raises anything but our own errors.
    """
    try:
        with warnings.catch_warnings():
            if not verbose:
                # Deprecations inside vLLM and torch do not concern our users.
                warnings.simplefilter("ignore")
            yield
    except QRSamplerError:
        raise
    # An engine can fail in any way; the type and the text of its error are passed on.
    except Exception as error:
        if verbose:
            traceback.print_exc()
        hint = "" if verbose else "; --verbose shows vLLM's log and the traceback"
        raise EngineError(f"{doing}: {type(error).__name__}: {error}{hint}") from error


class Engine:
    """One vLLM engine.

    Args:
        model: Name or directory of the model.
        arguments: Engine arguments; they take precedence over the defaults for a CPU.

    Raises:
        MissingPackageError: When vLLM cannot be imported.
    """

    def __init__(self, model: str, arguments: Mapping[str, Any]) -> None:
        self._vllm: Any = import_package("vllm", needed_for="generate", remedy=INSTALL_VLLM)
        self._llm: Any = self._vllm.LLM(model=model, **{**self._defaults(), **arguments})

    def _defaults(self) -> dict[str, Any]:
        # Bars of vLLM's own would break the line that shows the progress.
        defaults: dict[str, Any] = {"use_tqdm_on_load": False}
        platforms: Any = import_package(
            "vllm.platforms", needed_for="generate", remedy=INSTALL_VLLM
        )
        if platforms.current_platform.is_cpu():
            defaults |= {"dtype": "float32", "enforce_eager": True}
            if os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0":
                defaults["distributed_executor_backend"] = "uni"
        return defaults

    def complete(
        self,
        prompts: Sequence[str],
        options: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int,
        ignore_eos: bool = False,
    ) -> list[Any]:
        """Returns vLLM's ``CompletionOutput`` of each prompt.

        vLLM's own temperature and truncation are left neutral: the plugin applies its own before it
        forces the token.

        Args:
            prompts: The prompts.
            options: The ``qr_*`` keys of each.
            max_tokens: Largest number of tokens per prompt.
            ignore_eos: Whether every completion has as many, whatever tokens come.
        """
        parameters = [
            self._vllm.SamplingParams(
                **dataclasses.asdict(ORDINARY_FIELDS),
                max_tokens=max_tokens,
                extra_args=dict(option),
                **({"ignore_eos": True} if ignore_eos else {}),
            )
            for option in options
        ]
        outputs = self._llm.generate(list(prompts), parameters, use_tqdm=False)
        return [output.outputs[0] for output in outputs]

    def token_texts(self, token_ids: Sequence[int]) -> tuple[str, ...]:
        """Returns the text of each token, or its vocabulary entry where the bytes are no text."""
        tokenizer = self._llm.get_tokenizer()
        texts = []
        for token_id in token_ids:
            text = tokenizer.decode([token_id])
            texts.append(text if "\ufffd" not in text else _spelling(tokenizer, token_id))
        return tuple(texts)

    def write_records(self) -> None:
        """Writes the records of all tokens that were emitted, if the engine is in this process.

        An engine in a process of its own writes them within a fraction of a second.
        """
        plugin: Any = import_package(PLUGIN_PACKAGE, needed_for="generate", remedy=INSTALL_VLLM)
        plugin.flush_records()

    def close(self) -> None:
        """Stops the engine, which writes the records that were still pending."""
        self.write_records()
        self._llm.llm_engine.engine_core.shutdown()
        plugin: Any = import_package(PLUGIN_PACKAGE, needed_for="generate", remedy=INSTALL_VLLM)
        plugin.end_records()


def _spelling(tokenizer: Any, token_id: int) -> str:
    return str(tokenizer.convert_ids_to_tokens([token_id])[0])
