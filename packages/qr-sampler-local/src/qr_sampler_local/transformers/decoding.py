# SPDX-License-Identifier: Apache-2.0
"""Transformers' own decoding loop, in which an entropy source chooses the tokens.

``generate`` prepares the inputs, the cache, the logits processors and the stopping criteria, and
then calls a ``custom_generate`` callable in the place of its loop. This one calls that loop itself,
with a processor of its own behind all others and with watched stopping criteria: so it knows
whatever ends a row, and nothing changes the logits after a token is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import LogitsProcessor, LogitsProcessorList

from qr_sampler.errors import ConfigError, shown
from qr_sampler_local.loop import LocalSampler
from qr_sampler_local.transformers.batch import Batch, begun_sequences
from qr_sampler_local.transformers.logits_fields import logits_fields_of
from qr_sampler_local.transformers.modes import refuse_mode
from qr_sampler_local.transformers.processor import EntropyLogitsProcessor
from qr_sampler_local.transformers.prompts import masked_prompts
from qr_sampler_local.transformers.row_options import RowOptions
from qr_sampler_local.transformers.warpers import without_warpers
from qr_sampler_local.transformers.watched import (
    WatchedCriteria,
    WatchedStreamer,
    end_tokens_of,
    pads,
)

__all__ = ["Decoding"]


class Decoding:
    """A callable for the argument ``custom_generate`` of ``generate``, for one call or many.

    Args:
        sampler: What it samples with.
        options: The options of the requests.
        max_tokens: Most tokens of each row, where they have limits of their own.
        streamer: Gets the prompt, then the tokens. ``generate`` hands the one that it is given
            itself to no ``custom_generate``.
        after_step: Called with the rows when they have begun, and after each step, when its tokens
            are in them.
    """

    def __init__(
        self,
        sampler: LocalSampler,
        options: RowOptions,
        *,
        max_tokens: Sequence[int] | None = None,
        streamer: Any = None,
        after_step: Callable[[Batch], object] | None = None,
    ) -> None:
        self._sampler = sampler
        self._options = options
        self._max_tokens = max_tokens
        self._streamer = streamer
        self._after_step = after_step

    def __call__(
        self,
        model: Any,
        input_ids: Any,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **model_kwargs: Any,
    ) -> Any:
        """Returns what ``generate`` returns; called by it with what it has prepared.

        Raises:
            ConfigError: When an option is refused, or tokens could not be exact draws.
        """
        refuse_mode(generation_config)
        _refuse_ours(logits_processor)
        streamer = model_kwargs.pop("streamer", None)
        if self._streamer is not None:
            streamer = self._streamer
            streamer.put(input_ids.cpu())
        mask = None if model.config.is_encoder_decoder else model_kwargs.get("attention_mask")
        batch = self._begin(
            masked_prompts(input_ids, mask),
            input_ids.shape[1],
            logits_processor,
            stopping_criteria,
            generation_config,
        )
        try:
            processors = self._processors(batch, logits_processor, generation_config)
            batch.begin()
            # What generate itself calls, with all that it has prepared.
            output = model._sample(  # noqa: SLF001
                input_ids,
                logits_processor=LogitsProcessorList([*processors, _Choice(batch)]),
                stopping_criteria=WatchedCriteria(stopping_criteria, batch),
                generation_config=generation_config,
                streamer=None if streamer is None else WatchedStreamer(streamer, batch),
                **model_kwargs,
            )
            batch.finish()
        finally:
            batch.abandon()
        return output

    def _begin(
        self,
        prompts: Sequence[Sequence[int]],
        length: int,
        processors: Sequence[Any],
        criteria: Any,
        config: Any,
    ) -> Batch:
        """Returns the rows of a generation, a sequence for each."""
        options = self._options.of_rows(len(prompts), config.num_return_sequences or 1)
        fields = self._options.fields(options, processors, config)
        sequences = begun_sequences(
            self._sampler,
            prompts,
            options,
            self._limits(len(prompts), criteria.max_length, length, criteria),
            end_tokens=end_tokens_of(criteria),
            fields=fields,
            logits_fields=logits_fields_of(config, without_warpers(processors)),
        )
        return Batch(
            self._sampler,
            sequences,
            pads=pads(criteria),
            keep_logits=bool(config.output_logits or processors),
            after_step=self._after_step,
        )

    def _limits(
        self, rows: int, longest: int | None, length: int, criteria: Any
    ) -> list[int | None]:
        """Returns the most tokens of each row.

        Args:
            rows: Number of rows.
            longest: Largest length of a row with its prompt; ``None`` for no limit.
            length: That of the prompts with their padding.
            criteria: The stopping criteria.

        Raises:
            ConfigError: When rows with limits of their own could not be ended.
        """
        common = None if longest is None else longest - length
        if self._max_tokens is None:
            return [common] * rows
        if len(self._max_tokens) != rows or min(self._max_tokens) < 1:
            raise ConfigError(
                f"max_tokens={shown(self._max_tokens)}: expected a number from 1 on for each of "
                f"the {rows} rows"
            )
        if not pads(criteria):
            raise ConfigError(
                f"max_tokens={shown(self._max_tokens)}: without an end token no row can end before "
                "the others; pass eos_token_id and pad_token_id, too"
            )
        return [own if common is None else min(own, common) for own in self._max_tokens]

    def _processors(self, batch: Batch, processors: Sequence[Any], config: Any) -> list[Any]:
        """Returns the processors that act before a token is chosen.

        With no row left to Transformers its loop takes the most probable token, which is the one
        that is forced; otherwise it samples those rows with its own parameters and random numbers.
        """
        left = batch.left_to_engine
        if left == len(batch.sequences):
            return list(processors)
        ours = without_warpers(processors)
        if not left:
            config.do_sample = False
        elif len(ours) != len(processors):
            raise ConfigError(
                "some requests of a batch are left to Transformers, with sampling parameters of "
                "its own, and some are not; generate them in separate calls"
            )
        return ours


def _refuse_ours(processors: Sequence[Any]) -> None:
    """Refuses a list with a processor that chooses the tokens as well."""
    if any(isinstance(each, EntropyLogitsProcessor) for each in processors):
        raise ConfigError(
            "logits_processor: a processor of qr-sampler in a generation whose tokens it chooses "
            "already; leave it out"
        )


class _Choice(LogitsProcessor):  # type: ignore[misc]
    """The last processor of a generation, which chooses and forces the tokens."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Returns *scores*, shape ``(B, V)``, with the token of each row forced in place."""
        return self._batch.choose(scores)
