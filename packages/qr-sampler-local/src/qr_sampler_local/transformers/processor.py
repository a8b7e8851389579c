# SPDX-License-Identifier: Apache-2.0
"""A logits processor that chooses the tokens: for ``pipeline``, and wherever one can be passed.

Transformers tells a processor nothing but the tokens so far and the scores. What else is needed to
refuse what could not be exact is read from the frames of its caller, once in a generation; where it
is not found there, the processor refuses to work. What ends a row is known for the end tokens and
the length limit. A row that another stopping criterion ends is noticed one step later, by the
padding in the place of its token: that token is a discard.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Final
from weakref import ReferenceType, ref

from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from qr_sampler.errors import ConfigError
from qr_sampler_local.loop import LocalSampler
from qr_sampler_local.transformers.batch import Batch, begun_sequences
from qr_sampler_local.transformers.logits_fields import logits_fields_of
from qr_sampler_local.transformers.modes import refuse_arguments, refuse_mode
from qr_sampler_local.transformers.prompts import stripped_prompts
from qr_sampler_local.transformers.row_options import RowOptions
from qr_sampler_local.transformers.warpers import without_warpers
from qr_sampler_local.transformers.watched import end_tokens_of

__all__ = ["EntropyLogitsProcessor", "Generations"]

_HARMLESS: Final = ("LogitNormalization",)
"""Processors that may come after ours: they leave a forced row as it is."""

_FRAMES: Final = 6
"""How far up what a call has prepared is looked for."""


@dataclass(frozen=True, slots=True)
class _Generation:
    """One call of ``generate``."""

    processors: ReferenceType[Any]
    """The list of processors that it has made."""
    batch: Batch
    """Its rows."""
    shape: tuple[int, int]
    """Number of rows, and of tokens before its latest step."""


class Generations:
    """The latest generation of each thread: a further one shows that it is over."""

    def __init__(self) -> None:
        self._latest: dict[int, _Generation] = {}

    def going_on(self, processors: Any, shape: Sequence[int]) -> Batch | None:
        """Returns the rows of the generation of this thread if it is the one that goes on.

        Args:
            processors: The list of processors of a step: a generation makes one.
            shape: The shape of its token ids: a list that is used twice begins again.
        """
        thread = threading.get_ident()
        rows, length = shape
        latest = self._latest.get(thread)
        if latest is None or latest.processors() is not processors:
            return None
        if latest.shape != (rows, length - 1):
            return None
        self._latest[thread] = replace(latest, shape=(rows, length))
        return latest.batch

    def begin(self, processors: Any, batch: Batch, shape: Sequence[int]) -> None:
        """Takes note of a generation that begins in this thread."""
        thread = threading.get_ident()
        if (latest := self._latest.pop(thread, None)) is not None:
            latest.batch.forget()
        rows, length = shape
        self._latest[thread] = _Generation(ref(processors), batch, (rows, length))

    def close(self) -> None:
        """Takes note that all are over."""
        latest, self._latest = self._latest, {}
        for generation in latest.values():
            generation.batch.forget()


class EntropyLogitsProcessor(LogitsProcessor):  # type: ignore[misc]
    """Chooses the token of each row and forces it. Several threads may use it at once.

    Args:
        sampler: What it samples with.
        options: The options of the requests.
        generations: Those of all processors of the sampler.
    """

    def __init__(
        self, sampler: LocalSampler, options: RowOptions, generations: Generations
    ) -> None:
        self._sampler = sampler
        self._options = options
        self._generations = generations

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Returns *scores* with the token of each row forced in place.

        Args:
            input_ids: Shape ``(B, L)``, the prompts and the tokens so far.
            scores: Shape ``(B, V)``, float32.

        Raises:
            ConfigError: When an option is refused, or tokens could not be exact draws.
        """
        frame = sys._getframe(1)  # noqa: SLF001
        processors = self._list(frame)
        batch = self._generations.going_on(processors, input_ids.shape)
        if batch is None:
            batch = self._begin(input_ids, processors, _call(frame))
            self._generations.begin(processors, batch, input_ids.shape)
        else:
            batch.took(input_ids[:, -1].tolist())
        return batch.choose(scores)

    def _list(self, frame: FrameType) -> Any:
        """Returns the list of processors that this one is called by."""
        processors = frame.f_locals.get("self")
        if isinstance(processors, LogitsProcessorList) and self._place(processors) >= 0:
            return processors
        raise ConfigError(
            "this logits processor works within generate alone; use TransformersSampler.generate, "
            "or LocalSampler in a loop of your own"
        )

    def _place(self, processors: Any) -> int:
        places = [place for place, each in enumerate(processors) if each is self]
        return places[0] if places else -1

    def _begin(self, input_ids: Any, processors: Any, call: _Call) -> Batch:
        """Returns the rows of a generation that begins."""
        config = call.config
        refuse_mode(config)
        place = self._place(processors)
        before, after = processors[:place], processors[place + 1 :]
        rows, length = input_ids.shape
        options = self._options.of_rows(rows, config.num_return_sequences or 1)
        fields = self._options.fields(options, processors, config)
        _refuse_after(without_warpers(after))
        longest = call.criteria.max_length
        sequences = begun_sequences(
            self._sampler,
            stripped_prompts(input_ids, _pad_token(config)),
            options,
            [None if longest is None else longest - length] * rows,
            end_tokens=end_tokens_of(call.criteria),
            fields=fields,
            logits_fields=logits_fields_of(config, without_warpers(before)),
        )
        # Which rows have ended is not seen here, so those of ours that have are forced, too.
        keep_logits = bool(config.output_logits or before)
        return Batch(self._sampler, sequences, pads=False, keep_logits=keep_logits)


@dataclass(frozen=True, slots=True)
class _Call:
    """What the call of ``generate`` has prepared."""

    config: Any
    """Its complete ``GenerationConfig``."""
    criteria: Any
    """Its stopping criteria."""


def _call(frame: FrameType | None) -> _Call:
    """Returns what the call that *frame* belongs to has prepared."""
    for _ in range(_FRAMES):
        if frame is None:
            break
        config = frame.f_locals.get("generation_config")
        criteria = frame.f_locals.get("stopping_criteria")
        if isinstance(config, GenerationConfig) and isinstance(criteria, StoppingCriteriaList):
            refuse_arguments({"assistant_model": frame.f_locals.get("assistant_model")})
            return _Call(config, criteria)
        frame = frame.f_back
    raise ConfigError(
        "the generation_config and the stopping_criteria of this call are not visible to a logits "
        "processor; use TransformersSampler.generate"
    )


def _refuse_after(processors: Any) -> None:
    """Refuses processors that would act on rows whose token is chosen already."""
    for processor in processors:
        name = type(processor).__name__
        if name not in _HARMLESS:
            raise ConfigError(
                f"{name} would act after the token is chosen, so that it does nothing; put it "
                "before qr-sampler's processor, or use TransformersSampler.generate, where "
                "everything acts before"
            )


def _pad_token(config: Any) -> int | None:
    token = config.pad_token_id
    return None if token is None else int(token)
