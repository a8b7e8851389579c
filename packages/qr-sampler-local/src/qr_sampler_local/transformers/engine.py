# SPDX-License-Identifier: Apache-2.0
"""Transformers as an engine for ``qr-sampler generate`` and ``qr-sampler chat``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from qr_sampler import EntropySource, Settings
from qr_sampler.errors import ConfigError, shown
from qr_sampler_local.engines.protocol import (
    EmittedToken,
    FinishReason,
    Generated,
    TokenListener,
)
from qr_sampler_local.engines.tokenizers import TokenizedEngine
from qr_sampler_local.loop import LocalSequence
from qr_sampler_local.transformers.batch import Batch
from qr_sampler_local.transformers.sampler import TransformersSampler
from qr_sampler_local.transformers.warpers import own_parameters

__all__ = ["TransformersEngine"]

logger = logging.getLogger("qr_sampler.local")

_MODEL_ARGUMENTS: Final = ("attn_implementation", "dtype", "revision")
_ARGUMENTS: Final = ("cache_implementation", "device", *_MODEL_ARGUMENTS)


class TransformersEngine(TokenizedEngine):
    """A model that Transformers computes, as :class:`~qr_sampler_local.engines.LocalEngine`.

    Args:
        model: Directory of the model, or its name on the model hub.
        settings: The deployment's settings; those of the environment if not given.
        arguments: ``device`` (the accelerator where there is one, else ``"cpu"``), ``dtype``,
            ``attn_implementation`` and ``revision``, as ``from_pretrained`` takes them, and
            ``cache_implementation``, as ``generate`` does.
        sources: Sources of the caller's own.

    Raises:
        ConfigError: When the model cannot be loaded, or a setting or an argument is refused.
    """

    name = "transformers"

    def __init__(
        self,
        model: str,
        *,
        settings: Settings | None = None,
        arguments: Mapping[str, Any] | None = None,
        sources: Mapping[str, EntropySource] | Iterable[EntropySource] | None = None,
    ) -> None:
        given = dict(arguments or {})
        _refuse_unknown(given)
        self._cache = given.pop("cache_implementation", None)
        device = given.pop("device", None) or _best_device()
        self._model, self._tokenizer = _loaded(model, given, str(device))
        self._sampler = TransformersSampler(self._model, settings, sources=sources)
        self._tell_of_own_parameters()

    @property
    def version(self) -> str:
        """Version of Transformers."""
        return str(transformers.__version__)

    @property
    def device(self) -> str:
        """What it computes on, such as ``"cpu"`` or ``"cuda:0"``."""
        return str(self._model.device)

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
        """Returns what was emitted for each prompt; see :class:`LocalEngine`.

        Raises:
            ConfigError: When an option is unknown or out of range, or a prompt is empty or too
                long.
        """
        self._check_lengths(prompts, max_tokens)
        input_ids, attention_mask = self._padded(prompts)
        rows = _Rows(on_token)
        interrupted = False
        try:
            self._sampler.generate(
                input_ids,
                attention_mask=attention_mask,
                options=options,
                tokenizer=self._tokenizer,
                after_step=rows,
                **self._arguments(options, max_tokens),
            )
        except KeyboardInterrupt:
            if rows.sequences is None:
                raise
            interrupted = True
        return [_generated(sequence, interrupted) for sequence in rows.sequences or ()]

    def close(self) -> None:
        """Ends the records and frees the model. A second call does nothing."""
        self._sampler.close()
        self._model = None

    def _arguments(
        self, options: Sequence[Mapping[str, object]], max_tokens: int
    ) -> dict[str, Any]:
        """Returns further arguments of ``generate``.

        The model's own sampling parameters count only for requests that follow them.
        """
        follow = self._sampler.row_options(options).may_follow
        arguments: dict[str, Any] = {
            "max_new_tokens": max_tokens,
            "do_sample": follow,
            "num_beams": 1,
            "num_return_sequences": 1,
            "return_dict_in_generate": False,
            "pad_token_id": self._pad_token(),
        }
        if self._cache is not None:
            arguments["cache_implementation"] = self._cache
        return arguments

    def _pad_token(self) -> int:
        """Returns a token for the places that no row reads, one that the model has.

        A tokenizer that was given its padding token later often has one beyond the vocabulary.
        """
        ends = self._model.generation_config.eos_token_id
        found = [self._tokenizer.pad_token_id, *(ends if isinstance(ends, list) else [ends]), 0]
        known = range(self._model.config.get_text_config().vocab_size)
        return int(next(token for token in found if token in known))

    def _padded(self, prompts: Sequence[Sequence[int]]) -> tuple[Any, Any]:
        """Returns the prompts, padded on the left, and their mask; both ``(B, L)``, int64."""
        longest, pad = max(map(len, prompts)), self._pad_token()
        padding = [longest - len(prompt) for prompt in prompts]
        ids = [[pad] * fill + list(own) for fill, own in zip(padding, prompts, strict=True)]
        mask = [[0] * fill + [1] * (longest - fill) for fill in padding]
        device = self._model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _check_lengths(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> None:
        most = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        for number, prompt in enumerate(prompts):
            if not prompt:
                raise ConfigError(f"prompt {number} has no tokens; pass some text")
            if most is not None and len(prompt) + max_tokens > most:
                raise ConfigError(
                    f"prompt {number} has {len(prompt)} tokens, and {max_tokens} more are asked "
                    f"for: the model takes {most}; shorten one of them"
                )

    def _tell_of_own_parameters(self) -> None:
        """Says once which sampling parameters the model ships, since they do not count."""
        if shipped := own_parameters(self._model.generation_config):
            listed = ", ".join(f"{name}={value}" for name, value in shipped.items())
            logger.info(
                "the model comes with %s; qr-sampler follows them where qr_follow_request=1 says "
                "so, and else its own options",
                listed,
            )


class _Rows:
    """Hands the tokens of each step to whoever reads.

    Args:
        on_token: Called with each; what it raises ends the generation.
    """

    def __init__(self, on_token: TokenListener | None) -> None:
        self.sequences: list[LocalSequence] | None = None
        """That of each prompt, once they have begun."""
        self._on_token: Callable[[EmittedToken], object] | None = on_token

    def __call__(self, batch: Batch) -> None:
        """Takes in the rows after a step."""
        self.sequences = batch.sequences
        for row in batch.fresh_rows:
            batch.emitted(row)
            if self._on_token is not None:
                self._on_token(_latest(row, batch.sequences[row]))


def _latest(row: int, sequence: LocalSequence) -> EmittedToken:
    if sequence.outcome is None:
        # Transformers has chosen it.
        return EmittedToken(row, len(sequence.tokens) - 1, sequence.tokens[-1])
    return EmittedToken.of(row, sequence.outcome)


def _generated(sequence: LocalSequence, interrupted: bool) -> Generated:
    reason: FinishReason = "stop"
    if sequence.finish_reason == "length":
        reason = "length"
    elif sequence.finish_reason == "closed" and interrupted:
        reason = "interrupted"
    return Generated(
        sequence=sequence.name,
        request_key=sequence.request_key,
        tokens=tuple(sequence.tokens),
        finish_reason=reason,
    )


def _refuse_unknown(arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        if name not in _ARGUMENTS:
            raise ConfigError(
                f"{name}={shown(value)}: not an argument of this engine; it knows "
                f"{', '.join(_ARGUMENTS)}"
            )


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _loaded(model: str, arguments: Mapping[str, Any], device: str) -> tuple[Any, Any]:
    """Returns a model and its tokenizer; nothing that they ship is executed."""
    # Without the answer Transformers asks for it at the terminal.
    no_code: dict[str, Any] = {"trust_remote_code": False}
    try:
        # It is for the user to name a revision.
        loaded = AutoModelForCausalLM.from_pretrained(  # nosec B615
            model, **no_code, **arguments
        )
        revision = arguments.get("revision") or "main"
        tokenizer = AutoTokenizer.from_pretrained(model, **no_code, revision=revision)
        return loaded.to(device).eval(), tokenizer
    # Files of a model can be wrong in any way; the reason is passed on.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"Transformers cannot load the model {shown(model)} on {shown(device)}: {reason}"
        ) from error
