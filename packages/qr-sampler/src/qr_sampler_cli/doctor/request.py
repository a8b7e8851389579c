# SPDX-License-Identifier: Apache-2.0
"""How vLLM will be started, as far as it is known."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qr_sampler.errors import ConfigError
from qr_sampler_cli.parsing.assignments import engine_assignments

__all__ = ["EngineRequest", "engine_arguments"]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """The model and the arguments that vLLM will be given."""

    model: str | None = None
    """Name or directory of the model, ``None`` if not given."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Fields of vLLM's ``EngineArgs``, only those that were given."""

    @property
    def model_directory(self) -> Path | None:
        """The directory of the model, ``None`` if it is not on this machine."""
        return Path(self.model) if self.model and Path(self.model).is_dir() else None

    @property
    def speculative_config(self) -> dict[str, Any] | None:
        """The configuration of speculative decoding, ``None`` if it is off."""
        value = self.arguments.get("speculative_config")
        return value if isinstance(value, dict) else None

    @property
    def drafts(self) -> int:
        """Number of drafts per sequence and step."""
        value = (self.speculative_config or {}).get("num_speculative_tokens", 0)
        return value if isinstance(value, int) else 0

    @property
    def logits_processors(self) -> tuple[str, ...]:
        """The classes that ``--logits-processors`` names, in order."""
        value = self.arguments.get("logits_processors") or ()
        return tuple(map(str, [value] if isinstance(value, str) else value))

    @property
    def tensor_parallel_size(self) -> int:
        """Number of tensor-parallel ranks."""
        value = self.arguments.get("tensor_parallel_size", 1)
        return value if isinstance(value, int) else 1

    @property
    def max_num_seqs(self) -> int | None:
        """Largest number of sequences in a step, ``None`` if not given."""
        value = self.arguments.get("max_num_seqs")
        return value if isinstance(value, int) else None


def engine_arguments(
    *,
    speculative_config: str | None,
    tensor_parallel_size: int | None,
    logits_processors: Iterable[str],
    max_num_seqs: int | None,
    assignments: Iterable[str],
) -> dict[str, Any]:
    """Returns the fields of ``EngineArgs`` that the options of the command name.

    Args:
        speculative_config: JSON object, as ``vllm serve`` takes it.
        tensor_parallel_size: Number of ranks.
        logits_processors: Each one or more ``module:Class``, separated by spaces or commas.
        max_num_seqs: Largest number of sequences in a step.
        assignments: Any others as ``KEY=VALUE``, the value as JSON or text.

    Raises:
        ConfigError: When one is malformed.
    """
    named = {
        "speculative_config": _json_object("--speculative-config", speculative_config),
        "tensor_parallel_size": tensor_parallel_size,
        "logits_processors": _words(logits_processors) or None,
        "max_num_seqs": max_num_seqs,
    }
    given = {key: value for key, value in named.items() if value is not None}
    return {**engine_assignments(assignments), **given}


def _json_object(option: str, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{option} {text}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{option} {text}: expected a JSON object")
    return value


def _words(texts: Iterable[str]) -> list[str]:
    return [word for text in texts for word in text.replace(",", " ").split()]
