# SPDX-License-Identifier: Apache-2.0
"""MLX-LM as an engine for prompts: tokens and their records out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
import mlx_lm
from mlx_lm.utils import hf_repo_to_path

from qr_sampler import ConfigError, EntropySource, Settings
from qr_sampler_local import LocalSampler, LocalSequence
from qr_sampler_local.engines.protocol import Generated, TokenListener
from qr_sampler_local.engines.tokenizers import TokenizedEngine
from qr_sampler_local.mlx.generation import generated
from qr_sampler_local.mlx.sampler import DISTRIBUTIONS, engine_name

__all__ = ["MLXEngine", "files_of"]

_OF_LOAD: Final = ("adapter_path", "revision", "trust_remote_code")
"""Arguments that :func:`mlx_lm.load` takes."""

_PREFILL: Final = "prefill_step_size"
_DEFAULT_PREFILL: Final = 2048


class MLXEngine(TokenizedEngine):
    """A model of MLX-LM; see :class:`~qr_sampler_local.engines.LocalEngine`.

    Args:
        model: Directory of the model or its name on the model hub.
        settings: What to sample with; the environment's if ``None``.
        arguments: ``adapter_path``, ``revision`` and ``trust_remote_code`` as :func:`mlx_lm.load`
            takes them; ``prefill_step_size``, the number of tokens of a prompt that the model is
            given at once, 2048 by default.
        sources: Sources of the caller's own, as for :class:`~qr_sampler_local.LocalSampler`.

    Raises:
        ConfigError: When a setting or an argument cannot be served, or the model does not load.
    """

    name: Final = "mlx"

    def __init__(
        self,
        model: str,
        *,
        settings: Settings | None = None,
        arguments: Mapping[str, Any] | None = None,
        sources: Mapping[str, EntropySource] | Iterable[EntropySource] | None = None,
    ) -> None:
        loading, self._prefill_step_size = _sorted_arguments(arguments or {})
        self._model, self._tokenizer = _loaded(model, loading)
        self._context = _context_of(self._model)
        self._sampler = LocalSampler(
            model,
            settings,
            engine=engine_name(),
            model_files=files_of(model, loading),
            sources=sources,
            distributions=DISTRIBUTIONS,
            host={"device": self.device},
        )

    @property
    def version(self) -> str:
        """Version of MLX-LM."""
        return version("mlx-lm")

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"gpu"``, as MLX calls them."""
        return "cpu" if mx.default_device().type == mx.cpu else "gpu"

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the model."""
        return self._tokenizer

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        options: Sequence[Mapping[str, object]],
        on_token: TokenListener | None = None,
    ) -> list[Generated]:
        """Returns what was emitted for each prompt; see the protocol.

        With ``qr_bypass`` the most probable token is taken, as MLX-LM does by default. A text ends
        where the model's context does.

        Raises:
            ConfigError: When an option is unknown or out of range, or a prompt is too long.
        """
        limits = [self._limit(prompt, max_tokens) for prompt in prompts]
        sequences = self._begun(prompts, limits, options)
        return generated(
            self._model,
            prompts,
            self._sampler,
            sequences,
            on_token,
            prefill_step_size=self._prefill_step_size,
        )

    def close(self) -> None:
        """Ends the records and frees the model. A second call does nothing."""
        self._sampler.close()
        self._model = None
        mx.clear_cache()

    def _begun(
        self,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        options: Sequence[Mapping[str, object]],
    ) -> list[LocalSequence]:
        """Returns a sequence for each prompt, or none at all."""
        ends = sorted(self._tokenizer.eos_token_ids)
        begun: list[LocalSequence] = []
        with ExitStack() as stack:
            for prompt, limit, own in zip(prompts, limits, options, strict=True):
                keys = _prefixed(own)
                begun.append(
                    self._sampler.sequence(prompt, end_tokens=ends, max_tokens=limit, **keys)
                )
                stack.callback(self._sampler.close, begun[-1])
            stack.pop_all()
        return begun

    def _limit(self, prompt: Sequence[int], max_tokens: int) -> int:
        """Returns the number of tokens after which a text ends."""
        if not prompt:
            raise ConfigError("a prompt has no tokens; give at least one to go on from")
        if self._context is None:
            return max_tokens
        if len(prompt) >= self._context:
            raise ConfigError(
                f"a prompt has {len(prompt)} tokens, and the model's context {self._context}; "
                "shorten it, or use a model with a longer context"
            )
        return min(max_tokens, self._context - len(prompt))


def _prefixed(options: Mapping[str, object]) -> dict[str, Any]:
    """Returns options with the prefix of their keys, so that they are taken for nothing else."""
    return {f"qr_{key.removeprefix('qr_')}": value for key, value in options.items()}


def _sorted_arguments(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Returns the arguments of :func:`mlx_lm.load`, and the step size of prompts."""
    known = (*_OF_LOAD, _PREFILL)
    if unknown := sorted(set(arguments) - set(known)):
        raise ConfigError(f"MLX-LM takes no argument {unknown[0]!r} here; it takes {known}")
    size = arguments.get(_PREFILL, _DEFAULT_PREFILL)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ConfigError(f"{_PREFILL}={size!r}: expected a whole number of tokens, at least 1")
    return {key: arguments[key] for key in _OF_LOAD if key in arguments}, size


def _loaded(model: str, arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    try:
        network, tokenizer, *_ = mlx_lm.load(model, **arguments)
    # Files of a model can be wrong in any way; the reason is passed on.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"MLX-LM does not load the model {model!r} ({reason}); give the directory of a model "
            "or its name on the model hub"
        ) from error
    return network, tokenizer


def files_of(model: str, arguments: Mapping[str, Any]) -> Path | None:
    """Returns the directory of a model that was loaded, if it is certain which one that is.

    Args:
        model: Directory of the model or its name on the model hub.
        arguments: Those with which it was loaded.
    """
    if Path(model).is_dir():
        return Path(model)
    return None if arguments.get("revision") else hf_repo_to_path(model)


def _context_of(network: Any) -> int | None:
    """Returns the number of tokens that the model was made for; ``None`` if it does not say."""
    length = getattr(getattr(network, "args", None), "max_position_embeddings", None)
    return length if isinstance(length, int) else None
